// Run by test_typescript_fake.py in a built project: record from a real gateway, replay without one.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { Code, PenstockError } from "penstock-client";
import { FakeClient, NotRecorded, Recorder } from "penstock-client/fake";
import { connect } from "penstock-client/node";
import { Asked } from "./dist/generated/penstock/models/asked/v1/asked_pb.js";

const right = { instances: [{ x: [1, 2, 3, 4] }] };
const wrong = { instances: [{ x: [1] }] };
const refused = (error) => error instanceof PenstockError && error.reason === "WRONG_COUNT";

const recorder = new Recorder(connect(`http://${process.env.PENSTOCK_ADDRESS}`));
const recorded = await recorder.predict(Asked, right);
await assert.rejects(recorder.predict(Asked, wrong), refused);

const fake = new FakeClient(JSON.parse(JSON.stringify(recorder.recording)));
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
// One format: Python replays what was recorded here, and what Python recorded is replayed here.
writeFileSync("typescript.json", JSON.stringify(recorder.recording));
const python = new FakeClient(JSON.parse(readFileSync("python.json", "utf8")));
assert.deepEqual((await python.predict(Asked, right)).response, recorded.response);
await assert.rejects(python.predict(Asked, wrong), refused);
console.log("held");
