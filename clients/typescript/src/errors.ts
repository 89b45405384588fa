/** What can go wrong with a call: Connect's own error, with what the gateway says of it (google.rpc.ErrorInfo). */
import { Code, ConnectError } from "@connectrpc/connect";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

export { Code };

/**
 * A call that failed. `details` holds field, expected, received and hop where the gateway gives them; `requestId`
 * names the call to the gateway's operators.
 */
export class PenstockError extends Error {
  constructor(
    readonly code: Code,
    message: string,
    readonly reason: string,
    readonly details: Readonly<Record<string, string>>,
    readonly requestId: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "PenstockError";
  }

  /** Path of the field that is wrong, such as instances[0].x; "" when it is not about a field. */
  get field(): string {
    return this.details["field"] ?? "";
  }
}

const ERROR_INFO = "google.rpc.ErrorInfo";

export function errorOf(cause: unknown): PenstockError {
  if (cause instanceof PenstockError) return cause;
  const error = ConnectError.from(cause);
  const requestId = error.metadata.get("x-request-id") ?? "";
  for (const detail of error.details) {
    if ("type" in detail && detail.type === ERROR_INFO) {
      const { reason, metadata } = readErrorInfo(detail.value);
      return new PenstockError(error.code, error.rawMessage, reason, metadata, requestId, { cause: error });
    }
  }
  return new PenstockError(error.code, error.rawMessage, "", {}, requestId, { cause: error });
}

/** google.rpc.ErrorInfo: 1 reason, 2 domain, 3 map of metadata. Two fields need no generated code. */
function readErrorInfo(bytes: Uint8Array): { reason: string; metadata: Record<string, string> } {
  const reader = new BinaryReader(bytes);
  const metadata: Record<string, string> = {};
  let reason = "";
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (field === 1 && wire === WireType.LengthDelimited) reason = reader.string();
    else if (field === 3 && wire === WireType.LengthDelimited) {
      const [key, value] = readEntry(reader.bytes());
      metadata[key] = value;
    } else reader.skip(wire);
  }
  return { reason, metadata };
}

function readEntry(bytes: Uint8Array): [string, string] {
  const reader = new BinaryReader(bytes);
  let key = "";
  let value = "";
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (field === 1) key = reader.string();
    else if (field === 2) value = reader.string();
    else reader.skip(wire);
  }
  return [key, value];
}
