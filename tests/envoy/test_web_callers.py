"""gRPC-Web and Connect on the typed method's path: answers, errors with details, Envoy's own replies, browsers."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from adapters.server import Address
from gateway.envoy.state import ModelRoutes
from gateway.envoy.yaml_config import static_yaml
from tests.envoy.live import Plane, running_envoy, running_plane
from tests.envoy.states import model, settings, state
from tests.triton_server import free_ports

PATH = "/penstock.models.digits.v1.Digits/Predict"
WEB, WEB_TEXT = "application/grpc-web+proto", "application/grpc-web-text"


def request(*rows: list[float]) -> bytes:
    """A PredictRequest, which is also the PredictResponse of a model that answers `y = x`."""
    return b"".join(
        b"\x0a" + bytes([len(row) * 4 + 2]) + b"\x0a" + bytes([len(row) * 4]) + _floats(row) for row in rows
    )


def _floats(row: list[float]) -> bytes:
    return struct.pack(f"<{len(row)}f", *row)


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def unframed(body: bytes) -> tuple[bytes, dict[str, str]]:
    """The message, empty without one, and the trailers of a gRPC-Web body."""
    message, trailers = b"", {}
    while body:
        kind, size = body[0], int.from_bytes(body[1:5], "big")
        part, body = body[5 : 5 + size], body[5 + size :]
        if kind == 0:
            message = part
        else:
            trailers = dict(line.split(":", 1) for line in part.decode().split("\r\n") if line)
    return message, trailers


def detail_of(trailers: dict[str, str]) -> error_details_pb2.ErrorInfo:
    encoded = trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


async def call(plane: Plane, content_type: str, body: bytes, path: str = PATH, **headers: str) -> httpx.Response:
    return await plane.client.post(path, content=body, headers={"content-type": content_type, **headers})


async def test_every_form_gives_the_same_prediction(tmp_path: Path) -> None:
    good = request([1.5], [2.5])
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        web = await call(plane, WEB, frame(good))
        assert (web.status_code, web.headers["content-type"]) == (200, WEB)
        assert web.headers["x-penstock-version"] == "1"
        message, trailers = unframed(web.content)
        assert (message, trailers) == (good, {"grpc-status": "0"})

        encoded = base64.b64encode(frame(good))
        text = await call(plane, WEB_TEXT, encoded)
        assert unframed(base64.b64decode(text.content)) == (good, {"grpc-status": "0"})

        proto = await call(plane, "application/proto", good)
        assert (proto.status_code, proto.headers["content-type"], proto.content) == (200, "application/proto", good)

        body = b'{"instances":[{"x":[1.5]},{"x":[2.5]}]}'
        as_json = await call(plane, "application/json", body)
        assert as_json.json() == {"predictions": [{"y": [1.5]}, {"y": [2.5]}]}
        assert plane.inference.asked == {"digits.1": 4}


@pytest.mark.parametrize("content_type", ["application/proto", "application/json"])
async def test_a_connect_error_has_its_code_and_details(tmp_path: Path, content_type: str) -> None:
    body = request([1.5, 2.5]) if content_type == "application/proto" else b'{"instances":[{"x":[1.5,2.5]}]}'
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        response = await call(plane, content_type, body)
        assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
        error = response.json()
        assert error["code"] == "invalid_argument"
        assert "instances[0].x" in error["message"]
        (detail,) = error["details"]
        assert detail["type"] == "google.rpc.ErrorInfo"
        value = detail["value"]
        info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
        assert (info.reason, info.metadata["field"]) == ("WRONG_COUNT", "instances[0].x")

        plane.inference.broken.add("digits.1")
        failed = await call(plane, "application/proto", request([1.5]))
        assert (failed.status_code, failed.json()["code"]) == (500, "internal")
        assert "the model failed" in failed.json()["message"]

        unknown = await call(plane, content_type, body, "/penstock.models.nobody.v1.Nobody/Predict")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
        late = await call(plane, content_type, body, **{"connect-timeout-ms": "soon"})
        assert (late.status_code, late.json()["code"]) == (400, "invalid_argument")
        squeezed = await call(plane, content_type, body, **{"content-encoding": "gzip"})
        assert (squeezed.status_code, squeezed.json()["code"]) == (501, "unimplemented")
        pinned = await call(plane, content_type, body, **{"x-penstock-version": "9"})
        assert (pinned.status_code, pinned.json()["code"]) == (404, "not_found")
        assert "it has 1" in pinned.json()["message"]


@pytest.mark.parametrize("content_type", [WEB, WEB_TEXT])
async def test_a_grpc_web_error_is_in_its_trailers(tmp_path: Path, content_type: str) -> None:
    def sent(message: bytes) -> bytes:
        return base64.b64encode(frame(message)) if content_type == WEB_TEXT else frame(message)

    def trailers(response: httpx.Response) -> dict[str, str]:
        assert response.status_code == 200
        body = base64.b64decode(response.content) if content_type == WEB_TEXT else response.content
        message, found = unframed(body)
        assert message == b""
        return found

    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        wrong = trailers(await call(plane, content_type, sent(request([1.5, 2.5]))))
        assert wrong["grpc-status"] == "3"
        assert detail_of(wrong).metadata["field"] == "instances[0].x"
        plane.inference.broken.add("digits.1")
        assert trailers(await call(plane, content_type, sent(request([1.5]))))["grpc-status"] == "13"
        nobody = await call(plane, content_type, sent(b""), "/penstock.models.nobody.v1.Nobody/Predict")
        assert detail_of(trailers(nobody)).reason == "UNKNOWN_MODEL"
        with_pin = await call(plane, content_type, sent(request([1.5])), **{"x-penstock-version": "9"})
        assert detail_of(trailers(with_pin)).reason == "UNKNOWN_VERSION"


async def test_a_server_that_is_gone_is_unavailable_with_advice_in_every_form(tmp_path: Path) -> None:
    (nowhere,) = free_ports(1)
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        gone = replace(plane.inference.server, grpc=Address("127.0.0.1", nowhere))
        plane.inference.server = gone
        await plane.publish(model("digits", 1, stable=1))
        proto = await call(plane, "application/proto", request([1.5]))
        assert (proto.status_code, proto.json()["code"]) == (503, "unavailable")
        assert [d["type"] for d in proto.json()["details"]] == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]
        web = await call(plane, WEB, frame(request([1.5])))
        assert unframed(web.content)[1]["grpc-status"] == "14"
        plain = await plane.predict("digits")
        assert (plain.status_code, plain.headers["retry-after"]) == (503, "1")
        assert plain.json()["details"][1] == {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": "1s",
        }
        assert "upstream connect error" not in proto.text + plain.text


async def test_other_content_types_and_methods_are_refused_in_plain_json(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        csv = await call(plane, "text/csv", b"1,2")
        assert (csv.status_code, csv.json()["details"][0]["reason"]) == (415, "WRONG_CONTENT_TYPE")
        got = await plane.client.get(PATH)
        assert (got.status_code, got.headers["allow"]) == (405, "POST")


def untyped(name: str) -> ModelRoutes:
    typed = model(name, 1, stable=1)
    (version,) = typed.versions
    obstacles = ("'x': two tensors of this name.",)
    contract = replace(version.contract, obstacles=obstacles, inputs=(), outputs=())
    return replace(typed, versions=(replace(version, contract=contract),))


async def test_a_model_without_a_typed_api_says_why_and_where_to_go(tmp_path: Path) -> None:
    async with running_plane(tmp_path, untyped("odd")) as plane:
        response = await plane.predict("odd")
        assert response.status_code == 501
        error = response.json()
        assert (error["status"], error["details"][0]["reason"]) == ("UNIMPLEMENTED", "NO_TYPED_API")
        assert "two tensors of this name" in error["message"]
        assert "/v2/models/odd/infer" in error["details"][0]["metadata"]["try"]
        connect = await call(plane, "application/proto", b"", "/penstock.models.odd.v1.Odd/Predict")
        assert (connect.status_code, connect.json()["code"]) == (501, "unimplemented")
        ready = await plane.client.get("/v2/models/odd/ready")
        assert ready.status_code == 200


def second_major(name: str) -> ModelRoutes:
    first = model(name, 2, stable=2)
    (version,) = first.versions
    contract = replace(version.contract, major=2)
    return replace(first, key=f"{name}.v2", major=2, versions=(replace(version, contract=contract),))


async def test_each_api_major_has_its_own_routes_and_open_inference_reaches_all(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, stable=1), second_major("digits")) as plane:
        assert await plane.version_of("digits") == 1
        assert await plane.version_of("digits", path="/v2/models/digits:predict") == 2
        proto = await call(plane, "application/proto", request([1.5]), "/penstock.models.digits.v2.Digits/Predict")
        assert (proto.status_code, proto.headers["x-penstock-version"]) == (200, "2")
        unpinned = await plane.client.get("/v2/models/digits/ready")
        pinned = await plane.client.get("/v2/models/digits/versions/2/ready")
        assert [r.headers["x-penstock-version"] for r in (unpinned, pinned)] == ["1", "2"]
        wrong = await plane.predict("digits", path="/v3/models/digits:predict")
        assert wrong.status_code == 404
        assert "API v3" in wrong.json()["message"]
        await plane.publish(second_major("digits"))
        assert (await plane.client.get("/v2/models/digits/ready")).headers["x-penstock-version"] == "2"
        assert (await plane.predict("digits")).status_code == 404


async def test_browsers_of_allowed_sites_may_call_and_no_others(tmp_path: Path) -> None:
    listen, admin, grpc_port, http_port, server_grpc, server_http = free_ports(6)
    chosen = replace(
        settings(listen=listen, admin=admin, control_grpc=grpc_port, control_http=http_port),
        allowed_origins=("https://app.example",),
    )
    server = replace(
        state().backends[0], grpc=Address("127.0.0.1", server_grpc), http=Address("127.0.0.1", server_http)
    )
    config = static_yaml(state(model("digits", 1, stable=1), server=server), chosen, {})
    async with (
        running_envoy(config, tmp_path, admin),
        httpx.AsyncClient(base_url=f"http://{chosen.listen}", timeout=30) as client,
    ):
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-user-id"}
        allowed = await client.options(PATH, headers={"origin": "https://app.example", **asks})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-user-id" in allowed.headers["access-control-allow-headers"]
        other = await client.options(PATH, headers={"origin": "https://evil.example", **asks})
        assert "access-control-allow-origin" not in other.headers
        wrong = await client.post(
            "/v1/models/digits:predict", json={"instances": []}, headers={"origin": "https://app.example"}
        )
        assert wrong.status_code == 400
        assert wrong.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-request-id" in wrong.headers["access-control-expose-headers"]
        assert json.loads(wrong.content)["code"] == 3
        await envoys_own_replies(client)


async def envoys_own_replies(client: httpx.AsyncClient) -> None:
    """Those of allowed sites can read them, and others' browsers keep them from their pages."""
    here, elsewhere = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    refused = {
        "UNKNOWN_MODEL": "/v1/models/nobody:predict",
        "UNKNOWN_VERSION": "/v1/models/digits/versions/9:predict",
        "NOT_FOUND": "/v1/elsewhere",
    }
    for reason, path in refused.items():
        preflight = await client.options(path, headers=here | asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "content-type" in preflight.headers["access-control-allow-headers"]
        reply = await client.post(path, json={}, headers=here)
        assert (reply.status_code, reply.json()["details"][0]["reason"]) == (404, reason)
        assert reply.headers.get_list("access-control-allow-origin") == ["https://app.example"]
        assert "x-request-id" in reply.headers["access-control-expose-headers"]
        assert reply.headers["vary"] == "origin"
        assert (await client.options(path, headers=elsewhere | asks)).status_code == 404
        for headers in ({}, elsewhere):
            other = await client.post(path, json={}, headers=headers)
            assert not [name for name in other.headers if name.startswith(("access-control", "x-penstock-local"))]
