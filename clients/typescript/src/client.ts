/**
 * Typed predictions over any Connect transport: gRPC in Node (`penstock-client/node`), gRPC-Web in browsers
 * (`penstock-client/web`), recorded answers in tests (`penstock-client/fake`).
 *
 * A model is named by its generated service (`npm run generate` in the project of
 * `penstock api MODEL --format typescript`), so that an editor completes its fields.
 */
import type { DescMethodUnary, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, type Transport } from "@connectrpc/connect";
import { errorOf, PenstockError } from "./errors.js";
import { Budget, DEFAULT_RETRIES, pauseMs, type Retries } from "./retry.js";

/** A generated service of a model. */
export type ModelService = DescService & { method: { predict: DescMethodUnary } };
type Input<S extends ModelService> = MessageInitShape<S["method"]["predict"]["input"]>;
type Output<S extends ModelService> = MessageShape<S["method"]["predict"]["output"]>;

export interface Connection {
  /** The callers' address of the gateway: http://host:port. */
  readonly url: string;
  readonly transport: Transport;
  /** For feedback, which is plain HTTP. */
  readonly fetch: typeof fetch;
}

export interface Settings {
  /** Names the caller in every call that does not name another: one user stays on one version during a rollout. */
  userId?: string;
  /** For a whole call, repeats included. */
  timeoutMs?: number;
  retries?: Partial<Retries>;
  /** Go with every call: credentials, say. */
  headers?: Record<string, string>;
}

export interface Call {
  /** Pins the version that answers. */
  version?: number;
  userId?: string;
  /** Names the call, for feedback and repeats; made here when it is left out. */
  requestId?: string;
  /** For the whole call, repeats included. */
  timeoutMs?: number;
  /** Aborting it cancels the call, in the gateway too, and ends repeats: the call fails with Code.Canceled. */
  signal?: AbortSignal;
}

export interface Answer<T> {
  readonly response: T;
  readonly model: string;
  readonly version: number;
  readonly requestId: string;
}

/** What was right: the true label (a list for several rows), or a reward (more is better). */
export type Feedback = { label: unknown; row?: number } | { reward: number; row?: number };

export type FeedbackCall = Pick<Call, "timeoutMs" | "signal">;

export interface Penstock {
  /** One prediction. Throws PenstockError. */
  predict<S extends ModelService>(service: S, request: Input<S>, call?: Call): Promise<Answer<Output<S>>>;
  /** Throws PenstockError. */
  feedback(requestId: string, given: Feedback, call?: FeedbackCall): Promise<void>;
}

const DEFAULT_TIMEOUT_MS = 10_000;

export class Client implements Penstock {
  private readonly budget = new Budget();
  private readonly retries: Retries;

  constructor(
    private readonly connection: Connection,
    private readonly settings: Settings = {},
  ) {
    this.retries = { ...DEFAULT_RETRIES, ...settings.retries };
  }

  async predict<S extends ModelService>(service: S, request: Input<S>, call: Call = {}): Promise<Answer<Output<S>>> {
    const timeoutMs = call.timeoutMs ?? this.settings.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const requestId = call.requestId ?? newId();
    const headers = this.headers({ ...call, requestId });
    return this.repeated(timeoutMs, call.signal, async (leftMs) => {
      const { method } = service;
      const answer = await this.connection.transport.unary(method.predict, call.signal, leftMs, headers, request);
      const version = Number(answer.header.get("x-penstock-version"));
      if (!version) {
        const message = "the answer does not say its version: is this a Penstock gateway, and are its headers exposed?";
        throw new PenstockError(Code.Internal, message, "", {}, requestId);
      }
      const named = answer.header.get("x-request-id") ?? requestId;
      const model = answer.header.get("x-penstock-model") ?? service.typeName;
      return { response: answer.message as Output<S>, model, version, requestId: named };
    });
  }

  async feedback(requestId: string, given: Feedback, call: FeedbackCall = {}): Promise<void> {
    const timeoutMs = call.timeoutMs ?? this.settings.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    await this.repeated(timeoutMs, call.signal, async (leftMs) => {
      const body = { request_id: requestId, ...given };
      const response = await this.post("/v1/feedback", body, leftMs, call.signal, requestId);
      const text = await response.text();
      if (!response.ok) throw errorOfJson(response.status, text, requestId);
    });
  }

  private async post(
    path: string,
    body: unknown,
    leftMs: number,
    signal: AbortSignal | undefined,
    requestId: string,
  ): Promise<Response> {
    const deadline = AbortSignal.timeout(Math.max(1, leftMs));
    try {
      return await this.connection.fetch(`${this.connection.url}${path}`, {
        method: "POST",
        headers: {
          ...this.settings.headers,
          "content-type": "application/json",
          "grpc-timeout": `${Math.max(1, Math.ceil(leftMs))}m`,
        },
        body: JSON.stringify(body),
        signal: signal ? AbortSignal.any([deadline, signal]) : deadline,
      });
    } catch (cause) {
      const code = signal?.aborted ? Code.Canceled : deadline.aborted ? Code.DeadlineExceeded : Code.Unavailable;
      throw new PenstockError(code, `no answer from ${this.connection.url}: ${cause}`, "", {}, requestId, { cause });
    }
  }

  private headers(call: Call & { requestId: string }): Record<string, string> {
    const userId = call.userId ?? this.settings.userId;
    return {
      ...this.settings.headers,
      "x-request-id": call.requestId,
      ...(userId === undefined ? {} : { "x-user-id": userId }),
      ...(call.version === undefined ? {} : { "x-penstock-version": String(call.version) }),
    };
  }

  private async repeated<T>(
    timeoutMs: number,
    signal: AbortSignal | undefined,
    attempt: (leftMs: number) => Promise<T>,
  ): Promise<T> {
    const until = Date.now() + timeoutMs;
    for (let number = 1; ; number++) {
      try {
        const result = await attempt(Math.max(1, until - Date.now()));
        this.budget.succeeded();
        return result;
      } catch (cause) {
        const error = errorOf(cause);
        const pause = pauseMs(this.retries, this.budget, error, number, until - Date.now());
        if (pause === undefined || signal?.aborted) throw error;
        await elapsed(pause, signal);
      }
    }
  }
}

/** Waits, but not for a call that was cancelled: the next attempt says so. */
function elapsed(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    }
  });
}

interface StatusJson {
  code?: number;
  message?: string;
  details?: { reason?: string; metadata?: Record<string, string> }[];
}

function errorOfJson(http: number, text: string, requestId: string): PenstockError {
  let status: StatusJson = {};
  try {
    status = JSON.parse(text) as StatusJson;
  } catch {
    // Not the gateway's own answer; its text is the message.
  }
  const info = status.details?.find((detail) => detail.reason);
  const message = status.message ?? `HTTP ${http}: ${text.slice(0, 200)}`;
  const code = status.code ?? (http === 503 ? Code.Unavailable : Code.Unknown);
  return new PenstockError(code, message, info?.reason ?? "", info?.metadata ?? {}, requestId);
}

/** crypto.randomUUID is missing on pages that came without TLS. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
