"""Every mistake a caller can make, over every protocol: one table, one meaning, never a 5xx for what is the caller's.

What the gateway refuses is the same everywhere: code, reason, field, expected, limit. What Triton refuses over Open
Inference Protocol (the contents of tensors are its own to judge there) has Triton's words and the same code.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format

from adapters.signature import Datatype
from tests import models
from tests.e2e.running import Penstock
from tests.e2e.typed import TypedClient, from_reflection
from tests.protocols import JSON, OPEN, PROTOBUF, PROTOCOLS, TYPED, Call, NotRefused, Protocol, Refusal, Target

pytestmark = pytest.mark.e2e

ROW = [1.0, 2.0, 3.0, 4.0]
GOOD = ({"x": ROW},)
TOO_LATE = ({"x": [float(models.LIMIT + 1)] * 4},)
LARGE = 2 * 1024 * 1024

HTTP_ALONE = ("grpc", "open-grpc")
"""Protocols that have no HTTP method or content type of their own to get wrong."""


def only(protocols: Mapping[str, Protocol], *without: str) -> Mapping[str, Protocol]:
    return {name: protocol for name, protocol in protocols.items() if name not in without}


@dataclass(frozen=True)
class Mistake:
    """`send` is the call, as far as it differs from a good one; `where` the field that errors name.

    `code` and `http` hold for every protocol of `over`; `reason` for the gateway's own refusals, which are all of the
    typed ones and, with `everywhere`, those of Open Inference Protocol. `says`: parts of metadata, by key.
    """

    name: str
    code: int
    reason: str
    where: str = ""
    http: int = 400
    over: Mapping[str, Protocol] = field(default_factory=lambda: PROTOCOLS)
    everywhere: bool = False
    says: Mapping[str, str] = field(default_factory=dict)
    model: str = "mistaken"
    named: str = ""
    send: Mapping[str, Any] = field(default_factory=dict)


def rows(*given: Any) -> Mapping[str, Any]:
    return {"rows": given}


def raw(text: bytes, protobuf: bytes | None = None) -> Mapping[str, Any]:
    return {"text": text, "protobuf": protobuf}


X, X3 = "instances[0].x", "instances[0].x[3]"
INT16 = "an integer from -32768 to 32767"
LIMIT = {"expected": "at most 1048576 bytes", "limit": "--max-body-bytes"}
UNKNOWN_MODEL: Mapping[str, Any] = {"code": 5, "reason": "UNKNOWN_MODEL", "http": 404, "everywhere": True}
UNKNOWN_VERSION: Mapping[str, Any] = {"code": 5, "reason": "UNKNOWN_VERSION", "http": 404, "everywhere": True}

MISTAKES = [
    Mistake("too few values", 3, "WRONG_COUNT", X, says={"expected": "4 values"}, send=rows({"x": [1.0]})),
    Mistake("too many values", 3, "WRONG_COUNT", X, says={"received": "8"}, send=rows({"x": ROW * 2})),
    Mistake("too few in one row", 3, "WRONG_COUNT", "instances[1].x", over=TYPED, send=rows({"x": ROW}, {"x": [1.0]})),
    Mistake("a field left out", 3, "MISSING_FIELD", "instances[1].x", over=TYPED, send=rows({"x": ROW}, {})),
    Mistake("an unknown field", 3, "UNKNOWN_FIELD", "instances[0].z", over=JSON, says={"expected": "one of x"},
            send=raw(b'{"instances":[{"x":[1,2,3,4],"z":1}]}')),
    Mistake("a wrong type", 3, "WRONG_TYPE", X3, over=JSON, says={"expected": "a number", "received": '"four"'},
            send=raw(b'{"instances":[{"x":[1,2,3,"four"]}]}')),
    Mistake("a fraction for an integer", 3, "WRONG_TYPE", X3, over=JSON, model="brief",
            send=raw(b'{"instances":[{"x":[1,2,3,4.5]}]}')),
    Mistake("a number too large for its type", 3, "OUT_OF_RANGE", X3, over=TYPED, model="brief",
            says={"expected": INT16, "received": "40000"}, send=rows({"x": [1, 2, 3, 40000]})),
    Mistake("a number too large for a float", 3, "OUT_OF_RANGE", X3, over=JSON,
            says={"expected": "a magnitude below 3.41e38"}, send=raw(b'{"instances":[{"x":[1,2,3,1e39]}]}')),
    Mistake("too many rows", 3, "TOO_MANY_ROWS", "instances", says={"expected": "at most 64 instances"},
            send=rows(*[{"x": ROW}] * 65)),
    Mistake("no rows", 3, "MISSING_FIELD", "instances", over=TYPED, send=rows()),
    Mistake("an empty body, JSON", 3, "EMPTY_BODY", over=JSON, send=raw(b"")),
    Mistake("an empty body, Open Inference", 3, "MISSING_FIELD", over=OPEN, send=raw(b"", b"")),
    Mistake("a malformed body, JSON", 3, "MALFORMED_JSON", over=JSON, send=raw(b'{"instances":[')),
    Mistake("a malformed body, protobuf", 3, "MALFORMED_PROTOBUF", over=PROTOBUF, send=raw(b"", b"\xff\xff\xff")),
    Mistake("a malformed body, Open Inference", 3, "MISSING_FIELD", over=OPEN,
            send=raw(b'{"inputs":[', b"\xff\xff\xff")),
    Mistake("a body beyond the limit", 8, "TOO_LARGE", http=413, everywhere=True, over=only(PROTOCOLS, "open-grpc"),
            says=LIMIT, send=raw(b" " * LARGE, bytes(LARGE))),
    Mistake("tensors beyond the limit", 8, "TOO_LARGE", http=413, everywhere=True, over=only(OPEN, "open-json"),
            says=LIMIT, send=rows(*[{"x": ROW * 1024}] * 65)),
    Mistake("a compressed message", 12, "COMPRESSED", http=501, over=PROTOBUF, says={"expected": "identity"},
            send={"compressed": True, **rows(*GOOD * 20)}),
    Mistake("a compressed message, Connect JSON", 12, "COMPRESSED", "content-encoding", http=501,
            over=only(JSON, "json"), says={"expected": "identity"}, send={"compressed": True}),
    Mistake("a compressed message, JSON", 12, "COMPRESSED", "content-encoding", http=415,
            over=only(JSON, "connect-json"), says={"expected": "identity"}, send={"compressed": True}),
    Mistake("a compressed message, Open Inference gRPC", 12, "COMPRESSED", "grpc-encoding", everywhere=True,
            over={"open-grpc": OPEN["open-grpc"]}, send={"compressed": True, **rows(*GOOD * 20)}),
    Mistake("another method", 12, "METHOD_NOT_ALLOWED", http=405, over=only(PROTOCOLS, *HTTP_ALONE),
            says={"expected": "POST"}, send={"method": "GET"}),
    Mistake("another content type", 3, "WRONG_CONTENT_TYPE", "content-type", http=415,
            over=only(TYPED, *HTTP_ALONE), says={"received": "text/csv"}, send={"content_type": "text/csv"}),
    Mistake("an unknown model", named="mistakem", says={"nearest": "mistaken", "received": "mistakem"},
            **UNKNOWN_MODEL),
    Mistake("a name that no model can have", named="_mistaken", over=only(JSON, "connect-json"), **UNKNOWN_MODEL),
    Mistake("an unknown version", says={"expected": "one of 1"}, send={"pin": "99"}, **UNKNOWN_VERSION),
    Mistake("no version number", says={"received": "new"}, send={"pin": "new"}, **UNKNOWN_VERSION),
    Mistake("a deadline too short", 4, "DEADLINE", http=504, everywhere=True, over=only(PROTOCOLS, *HTTP_ALONE),
            says={"limit": "grpc-timeout"}, model="slow", send={"timeout_ms": 5, **rows(*TOO_LATE)}),
]  # fmt: skip


@dataclass(frozen=True)
class Stack:
    target: Target
    typed: Mapping[str, TypedClient]

    def call(self, model: str = "mistaken", named: str = "", **send: Any) -> Call:
        name = named or model
        datatype = "INT16" if model == "brief" else "FP32"
        parts = {"rows": GOOD, "datatype": datatype, "encode": self.typed[model].encode, **send}
        return Call(model=name, service=f"penstock.models.{name}.v1.{name.strip('_').capitalize()}", **parts)


@pytest.fixture(scope="module")
def stack(penstock: Penstock) -> Iterator[Stack]:
    penstock.deploy_live("mistaken", models.add_one())
    penstock.deploy_live("brief", models.identity(Datatype.INT16))
    penstock.deploy_live("slow", models.slow_on_large_input(rounds=5_000))
    with grpc.insecure_channel(penstock.authority, options=[("grpc.max_send_message_length", -1)]) as channel:
        names = ("mistaken", "brief", "slow")
        typed = {name: from_reflection(channel, f"penstock.models.{name}.v1.{name.capitalize()}") for name in names}
        yield Stack(Target(penstock.url, channel), typed)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_means_the_same_over_every_protocol(stack: Stack, mistake: Mistake) -> None:
    call = stack.call(mistake.model, mistake.named, **mistake.send)
    for name, protocol in mistake.over.items():
        refusal = protocol(stack.target, call)
        assert refusal.code == mistake.code, (name, refusal)
        assert refusal.http in {None, mistake.http}, (name, refusal)
        assert "upstream connect error" not in refusal.message, name
        if name in OPEN and not mistake.everywhere and not refusal.reason:
            assert refusal.message, name
            continue
        assert refusal.reason == mistake.reason, (name, refusal)
        assert refusal.metadata["hop"] in {"gateway", "server"}, (name, refusal)
        if mistake.where:
            assert refusal.metadata["field"] == mistake.where, (name, refusal)
            assert mistake.where in refusal.message, (name, refusal)
        for key, part in mistake.says.items():
            assert part in refusal.metadata[key], (name, refusal)


def test_a_good_call_is_answered_over_every_protocol(stack: Stack) -> None:
    for name, protocol in PROTOCOLS.items():
        with pytest.raises(NotRefused):
            raise AssertionError((name, protocol(stack.target, stack.call())))


def test_triton_takes_compressed_bodies_of_open_inference_over_http(stack: Stack) -> None:
    for protocol in only(OPEN, "open-grpc").values():
        with pytest.raises(NotRefused, match='"model_name":"mistaken"'):
            protocol(stack.target, stack.call(compressed=True))


def test_a_deadline_of_a_grpc_caller_is_kept(stack: Stack) -> None:
    """Their own clock says it, so without the gateway's details."""
    typed = stack.typed["slow"]
    with pytest.raises(grpc.RpcError) as caught:
        typed.call(typed.request(list(TOO_LATE)), timeout=0.005)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/models/mistaken:predicted", "NOT_FOUND"),
        ("/v1/models/mistaken/versions/9:predict", "UNKNOWN_VERSION"),
        ("/v2/models/mistaken/nothing", "NOT_FOUND"),
        ("/v2/models/mistaken/versions/9/infer", "UNKNOWN_VERSION"),
        ("/v3/nothing", "NOT_FOUND"),
    ],
)
def test_a_path_that_leads_nowhere_is_not_found(stack: Stack, path: str, reason: str) -> None:
    response = httpx.post(stack.target.url + path, json={}, timeout=30)
    assert (response.status_code, response.json()["details"][0]["reason"]) == (404, reason), response.text
    assert ("error" in response.json()) == path.startswith("/v2/")


@pytest.mark.parametrize(
    "path",
    [
        "/penstock.models.mistaken.v1.Mistaken/Predicted",
        "/penstock.models.mistaken.v1.Another/Predict",
        "/inference.GRPCInferenceService/ModelBake",
    ],
)
def test_a_method_that_there_is_none_of_is_not_found(stack: Stack, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stack.target.channel.unary_unary(path)(b"", timeout=30)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, f"nothing is served at {path}")


def test_connect_json_has_the_forms_of_proto3_json(stack: Stack, penstock: Penstock) -> None:
    """64-bit integers as text and bytes as base64, in both directions; plain numbers are taken too."""
    penstock.deploy_live("longs", models.identity(Datatype.INT64))
    penstock.deploy_live("base64", models.identity(Datatype.UINT8))
    for model, given, other in (
        ("longs", ["1", "-2", "9223372036854775807", "-9223372036854775808"], [1, -2, 2**63 - 1, -(2**63)]),
        ("base64", base64.b64encode(b"\0\1\xfe\xff").decode(), [0, 1, 254, 255]),
    ):
        for sent in (given, other):
            path = f"/penstock.models.{model}.v1.{model.capitalize()}/Predict"
            body = json.dumps({"instances": [{"x": sent}]})
            headers = {"content-type": "application/json"}
            answer = httpx.post(penstock.url + path, content=body, headers=headers, timeout=30)
            assert answer.json() == {"predictions": [{"y": given}]}, answer.text
        typed = from_reflection(stack.target.channel, f"penstock.models.{model}.v1.{model.capitalize()}")
        message = json_format.ParseDict(answer.json(), typed.response_class())
        assert json_format.MessageToDict(message) == answer.json(), "as protobuf's own library has it"


def test_what_reflection_describes_is_what_answers(stack: Stack) -> None:
    typed = stack.typed["mistaken"]
    answer = typed.call(typed.request([{"x": ROW}]), timeout=30)
    assert json_format.MessageToDict(answer) == {"predictions": [{"y": [2.0, 3.0, 4.0, 5.0]}]}


def test_open_inference_json_that_triton_answers_500_to_is_a_400(stack: Stack) -> None:
    for content in (b"", b"{}", b"[1", json.dumps({"inputs": []}).encode()):
        refusal: Refusal = OPEN["open-json"](stack.target, stack.call(text=content))
        assert (refusal.code, refusal.http) == (3, 400), content
