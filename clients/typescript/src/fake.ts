/**
 * Tests of an app without a gateway: `Recorder` passes calls on and keeps their answers, `FakeClient` gives them back.
 * A recording is JSON, so that an app can keep it in a file or import it; the Python client and its fake gateway read
 * and write the same (`penstock_client.recording`).
 */
import { create, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { Answer, Call, Feedback, FeedbackCall, ModelService, Penstock } from "./client.js";
import { PenstockError } from "./errors.js";
import { messageOf, type Row, rowsOf } from "./rows.js";

type Input<S extends ModelService> = MessageInitShape<S["method"]["predict"]["input"]>;
type Output<S extends ModelService> = MessageShape<S["method"]["predict"]["output"]>;

interface Recorded {
  model: string;
  major: number;
  version: number | null;
  inputs: Row | Row[];
  answer?: { rows: Row[]; batched: boolean; model: string; version: number };
  error?: { code: number; message: string; reason: string; metadata: Readonly<Record<string, string>> };
}

export interface Recording {
  penstock_recording: 1;
  models: { model: string; major: number; descriptor: string }[];
  calls: Recorded[];
}

/** The fake has no answer for this request: record it from a real gateway, or correct the request. */
export class NotRecorded extends Error {
  override name = "NotRecorded";
}

/** A client that passes every call on and keeps it; errors that the gateway answers too. */
export class Recorder implements Penstock {
  private readonly calls = new Map<string, Recorded>();
  private readonly models = new Map<string, Recording["models"][number]>();

  constructor(private readonly client: Penstock) {}

  /** What was recorded so far: write it with JSON.stringify. */
  get recording(): Recording {
    return { penstock_recording: 1, models: [...this.models.values()], calls: [...this.calls.values()] };
  }

  async predict<S extends ModelService>(service: S, request: Input<S>, call: Call = {}): Promise<Answer<Output<S>>> {
    const { input, output } = service.method.predict;
    const message = create(input, request) as MessageShape<typeof input>;
    const key = keyOf(service, message, call.version ?? null);
    const { model, major } = apiOf(service);
    const file = toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [service.file.proto] }));
    this.models.set(service.typeName, { model, major, descriptor: base64Encode(file) });
    const { rows, batched } = rowsOf(input, message);
    const asked = { model, major, version: call.version ?? null, inputs: batched ? rows : rows[0]! };
    try {
      const answer = await this.client.predict(service, request, call);
      const given = { ...rowsOf(output, answer.response), model: answer.model, version: answer.version };
      this.calls.set(key, { ...asked, answer: given });
      return answer;
    } catch (error) {
      if (error instanceof PenstockError) {
        const { code, message, reason, details } = error;
        this.calls.set(key, { ...asked, error: { code, message, reason, metadata: details } });
      }
      throw error;
    }
  }

  feedback(requestId: string, given: Feedback, call: FeedbackCall = {}): Promise<void> {
    return this.client.feedback(requestId, given, call);
  }
}

/** Answers what a recording holds. `given` is the feedback it got, in order. Throws NotRecorded for anything else. */
export class FakeClient implements Penstock {
  readonly given: { requestId: string; feedback: Feedback }[] = [];
  private readonly calls: Recorded[];
  private count = 0;

  constructor(recording: Recording) {
    if (recording?.penstock_recording !== 1 || !Array.isArray(recording.calls)) {
      throw new TypeError("this is no recording of penstock-client/fake or of Python's penstock_client.fake");
    }
    this.calls = recording.calls;
  }

  async predict<S extends ModelService>(service: S, request: Input<S>, call: Call = {}): Promise<Answer<Output<S>>> {
    const { input, output } = service.method.predict;
    const version = call.version ?? null;
    const key = keyOf(service, create(input, request) as MessageShape<typeof input>, version);
    const { model, major } = apiOf(service);
    const held = this.calls.filter((each) => each.model.replaceAll("-", "_") === model && each.major === major);
    // The last that was recorded is what the gateway answers now.
    const found = held.findLast((each) => keyOf(service, asked(service, each), each.version) === key);
    const requestId = call.requestId ?? `fake-${++this.count}`;
    if (found?.answer) {
      const { rows, version } = found.answer;
      return { response: messageOf(output, rows) as Output<S>, model: found.answer.model, version, requestId };
    }
    if (found?.error) {
      const { code, message, reason, metadata } = found.error;
      throw new PenstockError(code, message, reason, metadata, requestId);
    }
    const shown = JSON.stringify(request, (_, value) => (typeof value === "bigint" ? String(value) : value)).slice(0, 120);
    const pinned = version === null ? "" : ` of version ${version}`;
    throw new NotRecorded(
      `no recorded answer${pinned} of ${service.typeName} for ${shown}; ${held.length} are recorded. ` +
        "Record this request with Recorder, or correct it.",
    );
  }

  async feedback(requestId: string, feedback: Feedback): Promise<void> {
    this.given.push({ requestId, feedback });
  }
}

/** penstock.models.<key>.v<major>.<Service>; a key that programming languages reserve has "_" behind it there. */
function apiOf(service: ModelService): { model: string; major: number } {
  const [, , model, major] = service.typeName.split(".");
  return { model: model?.replace(/_$/, "") ?? "", major: Number(major?.slice(1)) };
}

function asked(service: ModelService, call: Recorded): MessageShape<ModelService["method"]["predict"]["input"]> {
  return messageOf(service.method.predict.input, Array.isArray(call.inputs) ? call.inputs : [call.inputs]);
}

/** Equal requests have equal bytes: floats are float32 there, and nested arrays flat. */
function keyOf<S extends ModelService>(
  service: S,
  request: MessageShape<ModelService["method"]["predict"]["input"]>,
  version: number | null,
): string {
  return `${service.typeName} ${version ?? ""} ${base64Encode(toBinary(service.method.predict.input, request))}`;
}
