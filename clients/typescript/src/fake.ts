/**
 * Tests of an app without a gateway: `Recorder` passes calls on and keeps their answers, `FakeClient` gives them back.
 * A recording is JSON, so that an app can keep it in a file or import it.
 */
import { create, fromJson, type JsonValue, type MessageInitShape, type MessageShape, toJson } from "@bufbuild/protobuf";
import type { Answer, Call, Feedback, ModelService, Penstock } from "./client.js";
import { PenstockError } from "./errors.js";

type Input<S extends ModelService> = MessageInitShape<S["method"]["predict"]["input"]>;
type Output<S extends ModelService> = MessageShape<S["method"]["predict"]["output"]>;

interface Recorded {
  service: string;
  version: number | null;
  request: JsonValue;
  answer?: { response: JsonValue; version: number };
  error?: { code: number; message: string; reason: string; details: Record<string, string> };
}

export interface Recording {
  penstock_recording_typed: 1;
  calls: Recorded[];
}

/** The fake has no answer for this request: record it from a real gateway, or correct the request. */
export class NotRecorded extends Error {
  override name = "NotRecorded";
}

/** A client that passes every call on and keeps it; errors that the gateway answers too. */
export class Recorder implements Penstock {
  private readonly calls = new Map<string, Recorded>();

  constructor(private readonly client: Penstock) {}

  /** What was recorded so far: write it with JSON.stringify. */
  get recording(): Recording {
    return { penstock_recording_typed: 1, calls: [...this.calls.values()] };
  }

  async predict<S extends ModelService>(service: S, request: Input<S>, call: Call = {}): Promise<Answer<Output<S>>> {
    const asked = question(service, request, call);
    try {
      const answer = await this.client.predict(service, request, call);
      const response = toJson(service.method.predict.output, answer.response);
      this.calls.set(keyOf(asked), { ...asked, answer: { response, version: answer.version } });
      return answer;
    } catch (error) {
      if (error instanceof PenstockError) {
        const { code, message, reason, details } = error;
        this.calls.set(keyOf(asked), { ...asked, error: { code, message, reason, details } });
      }
      throw error;
    }
  }

  feedback(requestId: string, given: Feedback): Promise<void> {
    return this.client.feedback(requestId, given);
  }
}

/** Answers what a recording holds. `given` is the feedback it got, in order. Throws NotRecorded for anything else. */
export class FakeClient implements Penstock {
  readonly given: { requestId: string; feedback: Feedback }[] = [];
  private readonly calls: Map<string, Recorded>;
  private count = 0;

  constructor(recording: Recording) {
    if (recording?.penstock_recording_typed !== 1 || !Array.isArray(recording.calls)) {
      throw new TypeError("this is no recording of penstock-client/fake");
    }
    this.calls = new Map(recording.calls.map((call) => [keyOf(call), call]));
  }

  async predict<S extends ModelService>(service: S, request: Input<S>, call: Call = {}): Promise<Answer<Output<S>>> {
    const asked = question(service, request, call);
    const found = this.calls.get(keyOf(asked));
    const requestId = call.requestId ?? `fake-${++this.count}`;
    if (found?.answer) {
      const response = fromJson(service.method.predict.output, found.answer.response) as Output<S>;
      return { response, version: found.answer.version, requestId };
    }
    if (found?.error) {
      const { code, message, reason, details } = found.error;
      throw new PenstockError(code, message, reason, details, requestId);
    }
    const shown = JSON.stringify(asked.request).slice(0, 120);
    const held = [...this.calls.values()].filter((other) => other.service === asked.service).length;
    const pinned = asked.version === null ? "" : ` of version ${asked.version}`;
    throw new NotRecorded(
      `no recorded answer${pinned} of ${asked.service} for ${shown}; ${held} are recorded. ` +
        "Record this request with Recorder, or correct it.",
    );
  }

  async feedback(requestId: string, feedback: Feedback): Promise<void> {
    this.given.push({ requestId, feedback });
  }
}

function question<S extends ModelService>(service: S, request: Input<S>, call: Call): Recorded {
  const input = service.method.predict.input;
  const message = create(input, request) as MessageShape<typeof input>;
  return { service: service.typeName, version: call.version ?? null, request: toJson(input, message) };
}

function keyOf(call: Recorded): string {
  return JSON.stringify([call.service, call.version, call.request]);
}
