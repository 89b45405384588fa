// Each generated module reads its example, and writes the bytes that Python's protobuf writes. One line per model.
import { readFileSync } from "node:fs";
import { fromBinary, fromJson, toBinary } from "@bufbuild/protobuf";

for (const { name, module, example, bytes } of JSON.parse(readFileSync("cases.json", "utf8"))) {
  const { PredictRequestSchema } = await import(module);
  const expected = Buffer.from(bytes, "base64");
  const written = Buffer.from(toBinary(PredictRequestSchema, fromJson(PredictRequestSchema, example)));
  const again = Buffer.from(toBinary(PredictRequestSchema, fromBinary(PredictRequestSchema, expected)));
  if (!written.equals(expected) || !again.equals(expected)) {
    throw new Error(`${name}: wrote ${written.toString("hex")}, expected ${expected.toString("hex")}`);
  }
  console.log(name);
}
