"""Every mistake a caller can make, over every protocol: the same code, field, expected and received; never a 5xx."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from tests import models
from tests.e2e.running import Penstock
from tests.e2e.typed import TypedClient, from_reflection

pytestmark = pytest.mark.e2e

MODEL, SERVICE = "mistaken", "penstock.models.mistaken.v1.Mistaken"
ROW = [1.0, 2.0, 3.0, 4.0]


@dataclass(frozen=True)
class Refusal:
    """An error as its protocol carried it, in one form."""

    code: int
    reason: str
    message: str
    metadata: dict[str, str] = field(hash=False)
    http: int | None = None


@dataclass(frozen=True)
class Caller:
    """A running stack and a typed client of its model."""

    penstock: Penstock
    channel: grpc.Channel
    typed: TypedClient

    def message(self, instances: list[dict[str, Any]]) -> bytes:
        return bytes(self.typed.request(instances).SerializeToString())

    def post(self, path: str, content_type: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        sent = {"content-type": content_type, **headers}
        return httpx.post(self.penstock.url + path, content=body, headers=sent, timeout=30)


@pytest.fixture(scope="module")
def caller(penstock: Penstock) -> Any:
    penstock.deploy_live(MODEL, models.add_one())
    with grpc.insecure_channel(penstock.authority) as channel:
        yield Caller(penstock, channel, from_reflection(channel, SERVICE))


def of_status(data: bytes, http: int | None = None) -> Refusal:
    status = status_pb2.Status.FromString(data)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info), status
    return Refusal(status.code, info.reason, status.message, dict(info.metadata), http)


def unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


def by_grpc(caller: Caller, service: str, body: bytes, headers: dict[str, str]) -> Refusal:
    call = caller.channel.unary_unary(f"/{service}/Predict")
    with pytest.raises(grpc.RpcError) as caught:
        call(body, timeout=30, metadata=tuple(headers.items()))
    error: Any = caught.value
    refusal = of_status(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert (refusal.code, refusal.message) == (error.code().value[0], error.details())
    return refusal


def by_json(caller: Caller, path: str, body: bytes, headers: dict[str, str]) -> Refusal:
    response = caller.post(path, "application/json", body, headers)
    parsed = response.json()
    info = parsed["details"][0]
    return Refusal(parsed["code"], info["reason"], parsed["message"], info["metadata"], response.status_code)


def by_grpc_web(caller: Caller, service: str, body: bytes, headers: dict[str, str]) -> Refusal:
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    response = caller.post(f"/{service}/Predict", "application/grpc-web+proto", framed, headers)
    assert response.status_code == 200
    assert response.content[0] == 0x80
    trailers = dict(line.split(":", 1) for line in response.content[5:].decode().split("\r\n") if line)
    return of_status(unpadded(trailers["grpc-status-details-bin"]))


def by_connect(caller: Caller, service: str, body: bytes, headers: dict[str, str]) -> Refusal:
    response = caller.post(f"/{service}/Predict", "application/proto", body, headers)
    error = response.json()
    info = error_details_pb2.ErrorInfo.FromString(unpadded(error["details"][0]["value"]))
    code = grpc.StatusCode[error["code"].upper()].value[0]
    return Refusal(code, info.reason, error["message"], dict(info.metadata), response.status_code)


PROTOBUF: dict[str, Callable[[Caller, str, bytes, dict[str, str]], Refusal]] = {
    "grpc": by_grpc,
    "grpc-web": by_grpc_web,
    "connect": by_connect,
}


@dataclass(frozen=True)
class Mistake:
    """`instances` is the body; `headers` and `name` what else may be wrong about a request."""

    name: str
    code: int
    reason: str
    where: str = ""
    instances: tuple[Any, ...] = ({"x": ROW},)
    headers: tuple[tuple[str, str], ...] = ()
    model: str = MODEL
    http: int = 400

    @property
    def service(self) -> str:
        return SERVICE if self.model == MODEL else f"penstock.models.{self.model}.v1.{self.model.capitalize()}"


MISTAKES = [
    Mistake("too few values", 3, "WRONG_COUNT", "instances[0].x", ({"x": ROW[:3]},)),
    Mistake("too many values", 3, "WRONG_COUNT", "instances[1].x", ({"x": ROW}, {"x": [*ROW, 5.0]})),
    Mistake("a field left out", 3, "MISSING_FIELD", "instances[1].x", ({"x": ROW}, {})),
    Mistake("no instances", 3, "MISSING_FIELD", "instances", ()),
    Mistake("too many instances", 3, "TOO_MANY_ROWS", "instances", ({"x": ROW},) * 65),
    Mistake("unknown model", 5, "UNKNOWN_MODEL", model="mistakem", http=404),
    Mistake("unknown version", 5, "UNKNOWN_VERSION", headers=(("x-penstock-version", "99"),), http=404),
    Mistake("no version number", 5, "UNKNOWN_VERSION", headers=(("x-penstock-version", "new"),), http=404),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_the_same_over_every_typed_protocol(caller: Caller, mistake: Mistake) -> None:
    headers = dict(mistake.headers)
    instances = list(mistake.instances)
    body = json.dumps({"instances": instances}).encode()
    expected = by_json(caller, f"/v1/models/{mistake.model}:predict", body, headers)
    assert (expected.code, expected.reason, expected.http) == (mistake.code, mistake.reason, mistake.http)
    assert expected.metadata.get("field", "") == mistake.where
    assert mistake.where in expected.message
    for name, call in PROTOBUF.items():
        refusal = call(caller, mistake.service, caller.message(instances), headers)
        assert (refusal.code, refusal.reason) == (expected.code, expected.reason), name
        for key in ("field", "expected", "hop", "limit"):
            assert refusal.metadata.get(key) == expected.metadata.get(key), (name, key)
        assert refusal.http in {None, expected.http}, name


def test_an_unknown_model_is_answered_with_names_like_it_and_a_wrong_version_with_those_there_are(
    caller: Caller,
) -> None:
    body = json.dumps({"instances": [{"x": ROW}]}).encode()
    unknown = by_json(caller, "/v1/models/mistakem:predict", body, {})
    assert "mistaken" in unknown.metadata["nearest"]
    assert "did you mean" in unknown.message
    wrong = by_json(caller, f"/v1/models/{MODEL}/versions/9:predict", body, {})
    assert "it has 1" in wrong.message
    over_grpc = by_grpc(caller, "penstock.models.mistakem.v1.Mistakem", b"", {})
    assert "mistaken" in over_grpc.metadata["nearest"]


@pytest.mark.parametrize("name", PROTOBUF)
def test_bytes_that_are_no_message_are_refused(caller: Caller, name: str) -> None:
    refusal = PROTOBUF[name](caller, SERVICE, b"\xff\xff\xff", {})
    assert (refusal.code, refusal.reason) == (3, "MALFORMED_PROTOBUF")


def test_a_body_beyond_the_limit_is_too_large_and_names_the_limit(caller: Caller) -> None:
    from_document = httpx.get(f"{caller.penstock.url}/v1/models/{MODEL}:predict")
    assert from_document.status_code == 405
    rows = [{"x": [0.123456789012345] * 4}] * 400_000
    large = json.dumps({"instances": rows}).encode()
    refusal = by_json(caller, f"/v1/models/{MODEL}:predict", large, {})
    assert (refusal.code, refusal.reason, refusal.http) == (8, "TOO_LARGE", 413)
    assert "bytes" in refusal.metadata["limit"]
    for name, call in PROTOBUF.items():
        over = call(caller, SERVICE, caller.message(rows), {})
        assert (over.code, over.reason) == (8, "TOO_LARGE"), name
        assert over.metadata["limit"] == refusal.metadata["limit"], name


def test_compressed_grpc_messages_are_refused_as_unimplemented(caller: Caller) -> None:
    for service, body in (
        (f"/{SERVICE}/Predict", caller.message([{"x": ROW * 20}])),
        ("/inference.GRPCInferenceService/ModelInfer", b"\x0a\x08mistaken" + b"\x1a\x40" + b"x" * 64),
    ):
        call = caller.channel.unary_unary(service)
        with pytest.raises(grpc.RpcError) as caught:
            call(body, timeout=30, compression=grpc.Compression.Gzip)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "compress" in error.details()


def test_open_inference_mistakes_are_the_callers(caller: Caller) -> None:
    url = caller.penstock.url
    wrong = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    for path, body, statuses in (
        (f"/v2/models/{MODEL}/infer", wrong, {400}),
        (f"/v2/models/{MODEL}/versions/9/infer", wrong, {404}),
        ("/v2/models/mistakem/infer", wrong, {404}),
        ("/v2/models/mistakem", None, {404}),
        (f"/v2/models/{MODEL}/nothing", None, {404}),
    ):
        response = httpx.post(url + path, json=body) if body else httpx.get(url + path)
        assert response.status_code in statuses, (path, response.text)
        assert response.json()["error"], path


def test_open_inference_json_that_triton_answers_500_to_is_a_400(caller: Caller) -> None:
    for content in (b"", b"{}", b"[1", json.dumps({"inputs": []}).encode()):
        response = httpx.post(f"{caller.penstock.url}/v2/models/{MODEL}/infer", content=content)
        assert response.status_code == 400, (content, response.text)
        assert response.json()["error"]


def test_a_deadline_of_the_callers_is_kept_on_both_protocols(caller: Caller, penstock: Penstock) -> None:
    penstock.deploy_live("slow", models.slow_on_large_input(rounds=5_000))
    x = [float(models.LIMIT + 1)] * 4
    body = {"instances": [{"x": x}]}
    late = httpx.post(f"{penstock.url}/v1/models/slow:predict", json=body, headers={"grpc-timeout": "5m"}, timeout=30)
    assert late.status_code == 504, late.text
    info = late.json()["details"][0]
    assert (late.json()["status"], info["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE")
    typed = from_reflection(caller.channel, "penstock.models.slow.v1.Slow")
    with pytest.raises(grpc.RpcError) as caught:
        typed.call(typed.request([{"x": x}]), timeout=0.005)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_reflection_describes_is_what_answers(caller: Caller) -> None:
    answer = caller.typed.call(caller.typed.request([{"x": ROW}]), timeout=30)
    assert json_format.MessageToDict(answer) == {"predictions": [{"y": [2.0, 3.0, 4.0, 5.0]}]}
