"""What is sent and what must come back: two models, each by every protocol, as bytes and as checks of the answer.

Bodies are whole request bodies (gRPC ones with their five-byte frame), as h2load sends them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import grpc
import httpx
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as oip

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.descriptor import message_classes
from gateway.contract.model import Contract

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"


class WrongAnswer(Exception):
    """An answer that is not the one the inference server gave; nothing is measured then."""


class Wire(StrEnum):
    GRPC = "gRPC"
    JSON_H2 = "JSON over HTTP/2"
    JSON_H1 = "JSON over HTTP/1.1"

    @property
    def http(self) -> str:
        return "HTTP/1.1" if self is Wire.JSON_H1 else "HTTP/2"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if self is Wire.GRPC:
            return (("content-type", "application/grpc"), ("te", "trailers"))
        return (("content-type", "application/json"),)


@dataclass(frozen=True)
class BenchModel:
    """A batching model x -> y, called with the same row `rows` times; `y` is what the stub answers to each."""

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    rows: int = 1

    @cached_property
    def signature(self) -> Signature:
        inputs = (TensorSpec("x", Datatype.FP32, self.x.shape),)
        outputs = (TensorSpec("y", Datatype.FP32, self.y.shape),)
        return Signature(inputs, outputs, max_batch_size=max(8, self.rows))

    @cached_property
    def contract(self) -> Contract:
        return derive(self.name, self.signature)

    @property
    def served_name(self) -> str:
        return f"{self.name}.1"

    def typed_request(self) -> bytes:
        message: Any = message_classes(self.contract).request()
        for _ in range(self.rows):
            message.instances.add().x.extend(self.x.ravel().tolist())
        return framed(message.SerializeToString())

    def typed_response(self) -> bytes:
        message: Any = message_classes(self.contract).response()
        for _ in range(self.rows):
            message.predictions.add().y.extend(self.y.ravel().tolist())
        return framed(message.SerializeToString())

    def infer_request(self) -> bytes:
        message = oip.ModelInferRequest(
            model_name=self.name,
            id=str(self.rows),
            inputs=[{"name": "x", "datatype": "FP32", "shape": [self.rows, *self.x.shape]}],
            outputs=[{"name": "y"}],
            raw_input_contents=[self.x.tobytes() * self.rows],
        )
        return framed(message.SerializeToString())

    def infer_response(self) -> bytes:
        message = oip.ModelInferResponse(
            model_name=self.served_name,
            model_version="1",
            id=str(self.rows),  # servers repeat the request's; Penstock sends the number of rows there and checks it
            outputs=[{"name": "y", "datatype": "FP32", "shape": [self.rows, *self.y.shape]}],
            raw_output_contents=[self.y.tobytes() * self.rows],
        )
        return framed(message.SerializeToString())

    def json_request(self) -> bytes:
        # Every float32 as the shortest text that names it, as a JavaScript or numpy caller writes it.
        values = np.array([float(str(value)) for value in self.x.ravel()]).reshape(self.x.shape)
        return json.dumps({"instances": [{"x": values.tolist()}] * self.rows}).encode()

    def check_typed(self, answer: bytes) -> None:
        message: Any = message_classes(self.contract).response.FromString(answer)
        self._check([row.y for row in message.predictions])

    def check_infer(self, answer: bytes) -> None:
        message = oip.ModelInferResponse.FromString(answer)
        raws = [np.frombuffer(raw, np.float32) for raw in message.raw_output_contents]
        self._check([row for raw in raws for row in np.array_split(raw, self.rows)])

    def check_json(self, answer: bytes) -> None:
        self._check([row["y"] for row in json.loads(answer)["predictions"]])

    def _check(self, rows: list[Any]) -> None:
        if [np.asarray(row, np.float32).tolist() for row in rows] != [self.y.ravel().tolist()] * self.rows:
            count = "one row" if self.rows == 1 else f"{self.rows} rows"
            raise WrongAnswer(f"expected {count} {self.y.tolist()}, received {rows}")


_ANSWER = np.array([0.25, 0.5, 0.125, 1.5], dtype=np.float32)
_PIXELS = np.random.default_rng(7).normal(size=(3, 224, 224)).round(6).astype(np.float32)
SMALL = BenchModel("small", np.array([5.1, 3.5, 1.4, 0.2], dtype=np.float32), _ANSWER)
LARGE = BenchModel("large", _PIXELS, _ANSWER)


def framed(message: bytes) -> bytes:
    """A gRPC message with its head: not compressed, length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def call_once(wire: Wire, port: int, path: str, body: bytes, headers: Sequence[tuple[str, str]]) -> tuple[bytes, int]:
    """Send one request with a client of its own kind: the answer, and the bytes of its whole body.

    Raises WrongAnswer for anything but success.
    """
    if wire is Wire.GRPC:
        return _call_grpc(port, path, body, headers)
    with httpx.Client(http1=wire is Wire.JSON_H1, http2=wire is Wire.JSON_H2, timeout=30) as client:
        try:
            answer = client.post(f"http://127.0.0.1:{port}{path}", content=body, headers=dict(headers))
        except httpx.HTTPError as error:
            raise WrongAnswer(f"{path}: expected 200, received no answer: {error!r}") from error
    if answer.status_code != httpx.codes.OK:
        raise WrongAnswer(f"{path}: expected 200, received {answer.status_code}: {answer.text[:500]}")
    return answer.content, len(answer.content)


def _call_grpc(port: int, path: str, body: bytes, headers: Sequence[tuple[str, str]]) -> tuple[bytes, int]:
    # The client sets gRPC's own headers itself.
    metadata = [(name, value) for name, value in headers if name not in ("content-type", "te")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            message = channel.unary_unary(path)(body[5:], timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{path}: expected OK, received {error.code().name}: {error.details()}") from error
    return message, len(framed(message))
