"""What is asked of every peer: three bodies, each in the forms that the peers speak, and the check of the answer.

The models are those of the gateway bench: x -> y with four floats as the answer. `SMALL` takes 4 floats, `LARGE` an
image of 150,528. Peers that run the model themselves give the same answer without a server behind them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from loadtest.bench.gateway.calls import INFER_PATH, LARGE, SMALL, BenchModel, Wire, WrongAnswer


class Size(StrEnum):
    """The three bodies."""

    SMALL = "4 floats"
    BINARY = "602 KB binary"
    JSON = "150,528 floats as JSON"

    @property
    def model(self) -> BenchModel:
        return SMALL if self is Size.SMALL else LARGE


class Form(StrEnum):
    """How a prediction is written."""

    TYPED_GRPC = "typed gRPC"
    INFER_GRPC = "Open Inference gRPC"
    TYPED_JSON = "typed JSON"
    INFER_JSON = "Open Inference JSON"
    INFER_BINARY = "Open Inference, binary tensors"
    PLAIN_JSON = "its own JSON"


def form_words(form: Form, wire: Wire) -> str:
    """A form as tables name it: of those that travel over either HTTP, over which."""
    return form.value if wire is Wire.GRPC else f"{form}, {wire.http}"


@dataclass(frozen=True, slots=True)
class Work:
    """One request, again and again. `wire` is how it travels; `headers` go beside those of the wire."""

    size: Size
    form: Form
    wire: Wire
    path: str
    body: bytes
    check: Callable[[bytes], None]
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{form_words(self.form, self.wire)}, {self.size}"

    @property
    def all_headers(self) -> tuple[tuple[str, str], ...]:
        own = dict(self.headers)
        return (*(h for h in self.wire.headers if h[0] not in own), *self.headers)


def typed_grpc(size: Size) -> Work:
    model = size.model
    path = model.contract.predict_grpc_path
    return Work(size, Form.TYPED_GRPC, Wire.GRPC, path, model.typed_request(), model.check_typed)


def infer_grpc(size: Size) -> Work:
    model = size.model
    return Work(size, Form.INFER_GRPC, Wire.GRPC, INFER_PATH, model.infer_request(), model.check_infer)


def typed_json(size: Size, wire: Wire = Wire.JSON_H1) -> Work:
    model = size.model
    path = model.contract.predict_http_path
    return Work(size, Form.TYPED_JSON, wire, path, model.json_request(), model.check_json)


def infer_json(size: Size) -> Work:
    """Open Inference Protocol over HTTP, values as JSON."""
    model = size.model
    body = {"inputs": [_tensor(model) | {"data": _shortest(model)}], "outputs": [{"name": "y"}]}
    return Work(size, Form.INFER_JSON, Wire.JSON_H1, _infer_path(model), json.dumps(body).encode(), _infer_check(model))


def infer_binary(size: Size) -> Work:
    """Open Inference Protocol over HTTP with the binary extension, both ways."""
    model = size.model
    tensor = _tensor(model) | {"parameters": {"binary_data_size": model.x.nbytes}}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    headers = (("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head))))
    body = head + model.x.tobytes()
    return Work(size, Form.INFER_BINARY, Wire.JSON_H1, _infer_path(model), body, _binary_check(model), headers)


def plain_json(size: Size, path: str) -> Work:
    """`{"x": [...]}` -> `{"y": [...]}`, as a hand-written service takes it."""
    model = size.model

    def check(answer: bytes) -> None:
        _same(model, json.loads(answer)["y"])

    return Work(size, Form.PLAIN_JSON, Wire.JSON_H1, path, json.dumps({"x": _shortest(model)}).encode(), check)


def _infer_path(model: BenchModel) -> str:
    return f"/v2/models/{model.name}/infer"


def _tensor(model: BenchModel) -> dict[str, Any]:
    return {"name": "x", "shape": [1, *model.x.shape], "datatype": "FP32"}


def _shortest(model: BenchModel) -> list[float]:
    """Each float32 as the shortest text that names it, as clients write it."""
    return [float(str(value)) for value in model.x.ravel()]


def _infer_check(model: BenchModel) -> Callable[[bytes], None]:
    def check(answer: bytes) -> None:
        (output,) = json.loads(answer)["outputs"]
        _same(model, output["data"])

    return check


def _binary_check(model: BenchModel) -> Callable[[bytes], None]:
    def check(answer: bytes) -> None:
        size = model.y.nbytes
        _same(model, struct.unpack(f"<{model.y.size}f", answer[-size:]))

    return check


def _same(model: BenchModel, values: Any) -> None:
    if not np.array_equal(np.asarray(values, np.float32).ravel(), model.y.ravel()):
        raise WrongAnswer(f"expected {model.y.tolist()}, received {values}")
