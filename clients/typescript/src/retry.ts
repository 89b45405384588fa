/**
 * Repeating a call. Only UNAVAILABLE is repeated: no server has answered then, and a prediction may be asked twice.
 * The budget is gRPC's retry throttling (proposal A6): a failure costs a token, a success gives back a part of one,
 * and nothing is repeated while less than half is left.
 */
import { Code } from "@connectrpc/connect";
import type { PenstockError } from "./errors.js";

/** Tokens of one client, shared by its calls. */
export class Budget {
  private tokens: number;

  constructor(
    private readonly most = 10,
    private readonly perSuccess = 0.1,
  ) {
    this.tokens = most;
  }

  succeeded(): void {
    this.tokens = Math.min(this.most, this.tokens + this.perSuccess);
  }

  /** Take a token; whether a repeat is allowed. */
  failed(): boolean {
    this.tokens = Math.max(0, this.tokens - 1);
    return this.tokens > this.most / 2;
  }
}

/** `attempts`: calls in all, 1 for none repeated. Pauses are random, up to `firstMs` * 2^(n-1) and `longestMs`. */
export interface Retries {
  readonly attempts: number;
  readonly firstMs: number;
  readonly longestMs: number;
}

export const DEFAULT_RETRIES: Retries = { attempts: 3, firstMs: 100, longestMs: 2000 };

/** How long to wait after attempt number `attempt` failed; undefined to give up. */
export function pauseMs(
  retries: Retries,
  budget: Budget,
  error: PenstockError,
  attempt: number,
  leftMs: number,
): number | undefined {
  if (error.code !== Code.Unavailable || !budget.failed() || attempt >= retries.attempts) return undefined;
  const pause = Math.random() * Math.min(retries.longestMs, retries.firstMs * 2 ** (attempt - 1));
  return pause < leftMs ? pause : undefined;
}
