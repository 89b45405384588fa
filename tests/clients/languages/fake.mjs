// Run by test_typescript_fake.py in a built project: record from a real gateway, replay without one.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { Code, PenstockError } from "penstock-client";
import { FakeClient, NotRecorded, Recorder } from "penstock-client/fake";
import { connect } from "penstock-client/node";
import { Asked } from "./dist/generated/penstock/models/asked/v1/asked_pb.js";
import { Asked as AskedV2 } from "./dist/generated/penstock/models/asked/v2/asked_pb.js";
import { Long } from "./dist/generated/penstock/models/long/v1/long_pb.js";
import { Small } from "./dist/generated/penstock/models/small/v1/small_pb.js";

const right = { instances: [{ x: [1, 2, 3, 4] }] };
const wrong = { instances: [{ x: [1] }] };
const refused = (error) => error instanceof PenstockError && error.reason === "WRONG_COUNT";

const recorder = new Recorder(connect(`http://${process.env.PENSTOCK_ADDRESS}`));
const recorded = await recorder.predict(Asked, right);
await assert.rejects(recorder.predict(Asked, wrong), refused);

// The second major has a service of its own.
const later = await recorder.predict(AskedV2, right);
assert.deepEqual(later.response.predictions[0].y, [6, 7, 8, 9]);
// What JSON and JavaScript's numbers cannot tell: the sign of a byte, 64 bits.
const small = { instances: [{ x: Uint8Array.of(255, 128, 127, 0) }] };
const long = { instances: [{ x: [2n ** 53n + 1n, -(2n ** 63n), 2n ** 63n - 1n, 0n] }] };
const smallAnswer = await recorder.predict(Small, small);
assert.deepEqual(smallAnswer.response.predictions[0].y, small.instances[0].x);
const longAnswer = await recorder.predict(Long, long);
assert.deepEqual(longAnswer.response.predictions[0].y, long.instances[0].x);

const fake = new FakeClient(JSON.parse(JSON.stringify(recorder.recording)));
assert.deepEqual((await fake.predict(AskedV2, right)).response, later.response);
assert.deepEqual((await fake.predict(Small, small)).response, smallAnswer.response);
assert.deepEqual((await fake.predict(Long, long)).response, longAnswer.response);
const replayed = await fake.predict(Asked, right, { requestId: "mine" });
assert.deepEqual(replayed.response, recorded.response);
assert.deepEqual([replayed.version, replayed.requestId], [recorded.version, "mine"]);
await assert.rejects(fake.predict(Asked, wrong), refused);
await assert.rejects(fake.predict(Asked, { instances: [{ x: [9] }] }), NotRecorded);
await assert.rejects(fake.predict(Asked, right, { version: 2 }), /no recorded answer of version 2/);
await fake.feedback("mine", { label: 3 });
assert.deepEqual(fake.given, [{ requestId: "mine", feedback: { label: 3 } }]);
assert.throws(() => new FakeClient({}), TypeError);

// Nobody listens there: the call is repeated, and then unavailable.
const nobody = connect("http://127.0.0.1:1", { retries: { attempts: 2, firstMs: 1 } });
await assert.rejects(nobody.predict(Asked, right), (error) => error.code === Code.Unavailable);
await assert.rejects(nobody.feedback("mine", { reward: 1 }), (error) => error.code === Code.Unavailable);
// A signal ends the pauses between repeats too; without it this call would go on for a minute.
const cancelled = new AbortController();
const patient = connect("http://127.0.0.1:1", { timeoutMs: 60_000, retries: { attempts: 9, firstMs: 60_000, longestMs: 60_000 } });
setTimeout(() => cancelled.abort(), 200);
const { signal } = cancelled;
await assert.rejects(patient.predict(Asked, right, { signal }), (error) => error.code === Code.Canceled);
await assert.rejects(patient.feedback("mine", { reward: 1 }, { signal }), (error) => error.code === Code.Canceled);
// One format: Python replays what was recorded here, and what Python recorded is replayed here.
writeFileSync("typescript.json", JSON.stringify(recorder.recording));
const python = new FakeClient(JSON.parse(readFileSync("python.json", "utf8")));
assert.deepEqual((await python.predict(Asked, right)).response, recorded.response);
await assert.rejects(python.predict(Asked, wrong), refused);
for (const recording of [python, new FakeClient(JSON.parse(readFileSync("grpc.json", "utf8")))]) {
  assert.deepEqual((await recording.predict(Small, small)).response, smallAnswer.response);
  assert.deepEqual((await recording.predict(Long, long)).response, longAnswer.response);
}
console.log("held");
