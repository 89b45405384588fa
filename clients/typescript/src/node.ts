/** Node: gRPC over HTTP/2. */
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Client, type Settings } from "./client.js";

/** `nodeOptions` are those of node:tls (ca, cert, key) for https:// addresses. */
export function connect(url: string, settings: Settings = {}, nodeOptions: object = {}): Client {
  const base = url.replace(/\/$/, "");
  return new Client({ url: base, fetch, transport: createGrpcTransport({ baseUrl: base, nodeOptions }) }, settings);
}
