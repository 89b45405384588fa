// Calls Predict of one model by every transport of connect-es and prints what each gave, one JSON object per line.
//
//   node predict.mjs URL SERVICE DESCRIPTOR_SET GOOD_JSON BAD_JSON
//
// DESCRIPTOR_SET is a file with a google.protobuf.FileDescriptorSet, as server reflection gives it.
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError, Code, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { createConnectTransport as browserConnect, createGrpcWebTransport as browserWeb } from "@connectrpc/connect-web";

const [baseUrl, serviceName, descriptorSet, good, bad] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptorSet)));
const service = registry.getService(serviceName);
const { predict } = service.method;

const transports = {
  "connect proto http1": createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  "connect proto http2": createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  "connect json http1": createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "grpc-web http1": createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "grpc-web http2": createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "grpc http2": createGrpcTransport({ baseUrl }),
  "browser connect proto": browserConnect({ baseUrl, useBinaryFormat: true }),
  "browser connect json": browserConnect({ baseUrl }),
  "browser grpc-web": browserWeb({ baseUrl }),
};

for (const [name, transport] of Object.entries(transports)) {
  const client = createClient(service, transport);
  const seen = { name };
  const onHeader = (headers) => {
    seen.version = headers.get("x-penstock-version");
  };
  const options = { onHeader, timeoutMs: 20000 };
  const answer = await client.predict(fromJson(predict.input, JSON.parse(good)), options);
  seen.answer = toJson(predict.output, answer);
  try {
    await client.predict(fromJson(predict.input, JSON.parse(bad)), options);
  } catch (error) {
    const known = ConnectError.from(error);
    seen.error = { code: Code[known.code], message: known.rawMessage, details: known.details.map((detail) => detail.type) };
  }
  console.log(JSON.stringify(seen));
}
process.exit(0); // HTTP/2 sessions are kept for a while
