/** Browsers: gRPC-Web over fetch. From another origin the gateway must allow it: `penstock up --allow-origin`. */
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Client, type Settings } from "./client.js";

export function connect(url: string = globalThis.location.origin, settings: Settings = {}): Client {
  const base = url.replace(/\/$/, "");
  const transport = createGrpcWebTransport({ baseUrl: base });
  return new Client({ url: base, fetch: globalThis.fetch.bind(globalThis), transport }, settings);
}
