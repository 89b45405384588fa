/** A model's messages and the rows of a recording (typed JSON: one object per row), each into the other. */
import { create, type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { reflect, type ReflectMessage } from "@bufbuild/protobuf/reflect";

export type Row = Record<string, unknown>;

/** What JSON has no value for: bytes, and integers that no JavaScript number holds. */
interface Marked {
  b64?: string;
  int?: string;
}

/** Tensors are flat. `batched`: the message holds a list of rows, otherwise it is the only row itself. */
export function rowsOf(schema: DescMessage, message: Message): { rows: Row[]; batched: boolean } {
  const of = reflect(schema, message);
  const list = listOf(schema);
  if (!list) return { rows: [rowOf(of)], batched: false };
  return { rows: Array.from(of.get(list) as Iterable<ReflectMessage>, rowOf), batched: true };
}

/** Tensors may be nested. Names that the message lacks are left out: a gateway refused them, no message says them. */
export function messageOf(schema: DescMessage, rows: Row[]): Message {
  const list = listOf(schema);
  if (!list) return filled(schema, rows[0] ?? {});
  return create(schema, { [list.localName]: rows.map((row) => filled(list.message, row)) });
}

function listOf(schema: DescMessage): (DescField & { message: DescMessage }) | undefined {
  const [only] = schema.fields;
  return only?.fieldKind === "list" && only.listKind === "message" ? only : undefined;
}

function rowOf(message: ReflectMessage): Row {
  const row: Row = {};
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    const value = message.get(field);
    row[field.jsonName] = field.fieldKind === "list" ? Array.from(value as Iterable<unknown>, plain) : plain(value);
  }
  return row;
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : { int: String(value) };
  }
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  return value instanceof Uint8Array ? { b64: base64Encode(value) } : value;
}

function filled(schema: DescMessage, row: Row): Message {
  const init: Record<string, unknown> = {};
  for (const field of schema.fields) {
    const value = row[field.jsonName];
    if (value === undefined || value === null) continue;
    if (field.scalar === ScalarType.BYTES) {
      // Numbers are those of UINT8 or INT8, which Python recorded over JSON.
      const { b64 } = value as Marked;
      init[field.localName] =
        b64 === undefined ? Uint8Array.from(leaves(value), (byte) => Number(byte) & 0xff) : base64Decode(b64);
      continue;
    }
    const values = leaves(value).map((each) => scalar(field, each));
    init[field.localName] = field.fieldKind === "list" ? values : values[0];
    const companion = schema.fields.find((other) => other.jsonName === `${field.jsonName}_shape`);
    const sizes = shape(value);
    if (companion && row[companion.jsonName] === undefined && sizes.length > 1) {
      init[companion.localName] = sizes.map(BigInt);
    }
  }
  return create(schema, init);
}

function scalar(field: DescField, value: unknown): unknown {
  switch (field.scalar) {
    case ScalarType.SFIXED64:
    case ScalarType.FIXED64:
      return BigInt((value as Marked).int ?? (value as number | string));
    case ScalarType.STRING: {
      // Text that came as bytes.
      const { b64 } = value as Marked;
      return b64 === undefined ? value : new TextDecoder().decode(base64Decode(b64));
    }
    case ScalarType.BOOL:
      return value;
    default:
      return Number(value);
  }
}

function leaves(value: unknown): unknown[] {
  return Array.isArray(value) ? value.flatMap(leaves) : [value];
}

function shape(value: unknown): number[] {
  return Array.isArray(value) ? [value.length, ...shape(value[0])] : [];
}
