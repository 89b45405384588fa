"""One call over every protocol of the gateway, and what it answered in one form: for tests of errors.

A `Call` is written once; `PROTOCOLS` sends it as each protocol has it. What a protocol cannot say (a wrong content type
in plain gRPC) is left out by the tests, not here.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2

TIMEOUT_S = 30.0
OPEN_GRPC = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Call:
    """A prediction of `model`, whose one input is called `x`.

    `rows` and `datatype` make the messages; `text` and `protobuf` are sent instead where given. `service` is the typed
    gRPC service, `encode` makes the rows its request. `timeout_ms`, `content_type` and `method` are for HTTP protocols.
    """

    model: str
    service: str
    encode: Callable[[Any], bytes]
    rows: Any
    datatype: str = "FP32"
    text: bytes | None = None
    protobuf: bytes | None = None
    pin: str = ""
    timeout_ms: int | None = None
    compressed: bool = False
    content_type: str = ""
    method: str = "POST"

    @property
    def message(self) -> bytes:
        return self.encode(self.rows) if self.protobuf is None else self.protobuf

    @property
    def json(self) -> bytes:
        return json.dumps({"instances": self.rows}).encode() if self.text is None else self.text

    @property
    def values(self) -> np.ndarray[Any, Any]:
        return np.array([row["x"] for row in self.rows], {"FP32": "<f4", "INT16": "<i2"}[self.datatype])


@dataclass(frozen=True)
class Refusal:
    """An error as its protocol carried it. `reason` and `metadata` are empty in an error of the server's own.

    `http` is the HTTP status where it is part of the answer; `retry_s` the advice of when to try again.
    """

    code: int
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    http: int | None = None
    retry_s: int | None = None


@dataclass(frozen=True)
class Target:
    """Where the gateway listens."""

    url: str
    channel: grpc.Channel


class NotRefused(AssertionError):
    """The call succeeded."""


def over_grpc(target: Target, call: Call) -> Refusal:
    return _over_grpc(target, call, f"/{call.service}/Predict", call.message)


def over_open_grpc(target: Target, call: Call) -> Refusal:
    if call.protobuf is not None:
        return _over_grpc(target, call, OPEN_GRPC, call.protobuf)
    values = call.values
    request = service_pb2.ModelInferRequest(model_name=call.model, raw_input_contents=[values.tobytes()])
    request.inputs.add(name="x", datatype=call.datatype, shape=values.shape)
    return _over_grpc(target, call, OPEN_GRPC, request.SerializeToString())


def _over_grpc(target: Target, call: Call, path: str, body: bytes) -> Refusal:
    metadata = (("x-penstock-version", call.pin),) if call.pin else ()
    compression = grpc.Compression.Gzip if call.compressed else None
    try:
        target.channel.unary_unary(path)(body, metadata=metadata, timeout=TIMEOUT_S, compression=compression)
    except grpc.RpcError as error:
        caught: Any = error
    else:
        raise NotRefused(path)
    details = dict(caught.trailing_metadata() or ()).get("grpc-status-details-bin")
    code, message = caught.code().value[0], caught.details()
    if details is None:
        return Refusal(code, "", message)
    refusal = _of_status(details)
    assert (refusal.code, refusal.message) == (code, message)
    return refusal


def over_json(target: Target, call: Call) -> Refusal:
    response = _post(target, call, f"/v1/models/{call.model}:predict", "application/json", call.json)
    return _of_json(response)


def over_open_json(target: Target, call: Call) -> Refusal:
    values = call.values if call.text is None else None
    body = call.text or b""
    if values is not None:
        tensor = {"name": "x", "datatype": call.datatype, "shape": values.shape, "data": values.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]}).encode()
    return _of_json(_post(target, call, f"/v2/models/{call.model}/infer", "application/json", body))


def over_open_binary(target: Target, call: Call) -> Refusal:
    if call.text is not None:
        head, tail = call.text, b""
    else:
        values = call.values
        parameters = {"binary_data_size": values.nbytes}
        tensor = {"name": "x", "datatype": call.datatype, "shape": values.shape, "parameters": parameters}
        head, tail = json.dumps({"inputs": [tensor]}).encode(), values.tobytes()
    sizes = {"inference-header-content-length": str(len(head))}
    path = f"/v2/models/{call.model}/infer"
    return _of_json(_post(target, call, path, "application/octet-stream", head + tail, sizes))


def over_grpc_web(target: Target, call: Call) -> Refusal:
    message = gzip.compress(call.message) if call.compressed else call.message
    framed = bytes([call.compressed]) + len(message).to_bytes(4, "big") + message
    response = _post(target, call, f"/{call.service}/Predict", "application/grpc-web+proto", framed)
    if response.headers["content-type"] == "application/json":
        return _of_json(response)
    assert response.status_code == 200
    if response.content[0] != 0x80:
        raise NotRefused(response.text)
    trailers = dict(line.split(":", 1) for line in response.content[5:].decode().split("\r\n") if line)
    return _of_status(_unpadded(trailers["grpc-status-details-bin"]))


def over_connect(target: Target, call: Call) -> Refusal:
    return _of_connect(_post(target, call, f"/{call.service}/Predict", "application/proto", call.message))


def over_connect_json(target: Target, call: Call) -> Refusal:
    return _of_connect(_post(target, call, f"/{call.service}/Predict", "application/json", call.json))


def _post(
    target: Target, call: Call, path: str, content_type: str, body: bytes, more: Mapping[str, str] | None = None
) -> httpx.Response:
    headers = {"content-type": call.content_type or content_type, **(more or {})}
    if call.pin:
        headers["x-penstock-version"] = call.pin
    if call.timeout_ms is not None:
        headers["grpc-timeout"] = f"{call.timeout_ms}m"
    if call.compressed and content_type != "application/grpc-web+proto":
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body)
    return httpx.request(call.method, target.url + path, content=body, headers=headers, timeout=TIMEOUT_S)


def _of_json(response: httpx.Response) -> Refusal:
    if response.is_success:
        raise NotRefused(response.text)
    error = response.json()
    retry_s = int(response.headers["retry-after"]) if "retry-after" in response.headers else None
    if "details" not in error:
        said = error["error"] if "error" in error else error["message"]
        return Refusal(_CODES[response.status_code], "", said, {}, response.status_code, retry_s)
    info, *retry = error["details"]
    assert bool(retry) == (retry_s is not None)
    return Refusal(error["code"], info["reason"], error["message"], info["metadata"], response.status_code, retry_s)


_CODES = {400: 3, 404: 5, 405: 12, 500: 13, 501: 12, 503: 14}
"""HTTP status of a server's own error as a gRPC code."""


def _of_connect(response: httpx.Response) -> Refusal:
    if response.is_success:
        raise NotRefused(response.text)
    error = response.json()
    if isinstance(error["code"], int):
        return _of_json(response)
    details = [_unpadded(detail["value"]) for detail in error["details"]]
    info = error_details_pb2.ErrorInfo.FromString(details[0])
    retry = error_details_pb2.RetryInfo.FromString(details[1]).retry_delay.seconds if details[1:] else None
    code = grpc.StatusCode[error["code"].upper()].value[0]
    return Refusal(code, info.reason, error["message"], dict(info.metadata), response.status_code, retry)


def _of_status(data: bytes) -> Refusal:
    status = status_pb2.Status.FromString(data)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info), status
    advised = len(status.details) > 1 and status.details[1].Unpack(retry)
    retry_s = retry.retry_delay.seconds if advised else None
    return Refusal(status.code, info.reason, status.message, dict(info.metadata), None, retry_s)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


Protocol = Callable[[Target, Call], Refusal]

PROTOBUF: Mapping[str, Protocol] = {"grpc": over_grpc, "grpc-web": over_grpc_web, "connect": over_connect}
JSON: Mapping[str, Protocol] = {"json": over_json, "connect-json": over_connect_json}
TYPED: Mapping[str, Protocol] = {**PROTOBUF, **JSON}
OPEN: Mapping[str, Protocol] = {
    "open-json": over_open_json,
    "open-binary": over_open_binary,
    "open-grpc": over_open_grpc,
}
PROTOCOLS: Mapping[str, Protocol] = {**TYPED, **OPEN}
