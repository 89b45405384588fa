"""Open Inference Protocol messages as tensors, and `ModelInfer` by any served name: for evidence, never for callers.

The mirror evaluator asks two versions what a caller asked; the golden check asks what a file says. Both know a version
by the server's own name for it. Everything of gRPC and of tritonclient's messages stays here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from adapters.sample import NUMPY, Array
from adapters.server import Address
from adapters.signature import Datatype

MODEL_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"

_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class BadMessage(Exception):
    """The bytes are no request or answer that can be read as tensors; the message says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. `values` has the whole shape, batch dimension included; BYTES elements are `bytes`."""

    name: str
    datatype: str
    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def raw(self) -> bytes:
        """The contents as they go over the wire: little-endian, row-major; BYTES elements with their lengths."""
        if self.datatype == "BYTES":
            packed = serialize_byte_tensor(self.values)
            return bytes(packed.item()) if packed.size else b""
        if self.datatype == "BF16":
            wide = np.ascontiguousarray(self.values, "<f4").view("<u4")
            return np.asarray(wide >> 16).astype("<u2").tobytes()
        kind = np.dtype(NUMPY[Datatype(self.datatype)]).newbyteorder("<")
        return np.ascontiguousarray(self.values, kind).tobytes()


@dataclass(frozen=True, slots=True)
class Target:
    """A version as its server knows it."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version said. `error` is empty for a completed inference; `status` is the gRPC status code."""

    status: int
    error: str = ""
    outputs: tuple[Tensor, ...] = ()


@dataclass(slots=True)
class InferRequest:
    """A `ModelInfer` request that can be sent to any version."""

    _message: Any = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> InferRequest:
        """Raises BadMessage."""
        message = service_pb2.ModelInferRequest()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise BadMessage("not a ModelInferRequest") from error
        return cls(message)

    @classmethod
    def of(cls, inputs: Sequence[Tensor]) -> InferRequest:
        message = service_pb2.ModelInferRequest()
        for tensor in inputs:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(tensor.raw())
        return cls(message)

    @property
    def target(self) -> Target:
        """Whom the request names."""
        return Target(self._message.model_name, self._message.model_version)

    def to(self, target: Target) -> bytes:
        """The same question to `target`."""
        self._message.model_name, self._message.model_version = target.name, target.version
        return bytes(self._message.SerializeToString())

    def inputs(self) -> tuple[Tensor, ...]:
        """Raises BadMessage."""
        return _tensors(self._message.inputs, self._message.raw_input_contents)


class Inference:
    """One inference server, asked by served name. Close it with `close`."""

    def __init__(self, address: Address) -> None:
        self._channel = grpc.aio.insecure_channel(str(address), options=_CHANNEL)
        self._infer = self._channel.unary_unary(MODEL_INFER)

    async def infer(self, request: InferRequest, target: Target, *, timeout_s: float) -> Answer:
        """Never raises for what the server says: an error is an answer too."""
        try:
            data = await self._infer(request.to(target), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return Answer(int(error.code().value[0]), error.details() or error.code().name)
        message = service_pb2.ModelInferResponse()
        try:
            message.ParseFromString(data)
            return Answer(0, outputs=_tensors(message.outputs, message.raw_output_contents))
        except (DecodeError, BadMessage) as error:
            return Answer(int(grpc.StatusCode.INTERNAL.value[0]), f"an answer that cannot be read: {error}")

    async def close(self) -> None:
        await self._channel.close()


_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Fields of `InferTensorContents` for tensors that are not sent raw."""


def _tensors(specs: Sequence[Any], raw: Sequence[bytes]) -> tuple[Tensor, ...]:
    if raw and len(raw) != len(specs):
        raise BadMessage(f"{len(specs)} tensors with {len(raw)} raw contents")
    tensors = []
    for index, spec in enumerate(specs):
        flat = _from_raw(spec, raw[index]) if raw else _from_contents(spec)
        try:
            values = flat.reshape(tuple(spec.shape))
        except ValueError as error:
            raise BadMessage(f"{spec.name}: {flat.size} elements for shape {list(spec.shape)}") from error
        tensors.append(Tensor(spec.name, spec.datatype, values))
    return tuple(tensors)


def _from_raw(spec: Any, data: bytes) -> Array:
    if spec.datatype == "BYTES":
        try:
            return np.asarray(deserialize_bytes_tensor(data), np.object_)
        except Exception as error:
            # tritonclient reads lengths with struct and numpy, and lets the errors of both out.
            raise BadMessage(f"{spec.name}: broken BYTES contents") from error
    try:
        if spec.datatype == "BF16":
            # The upper half of a float32.
            wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            return np.asarray(wide.view(np.float32))
        return np.frombuffer(data, np.dtype(NUMPY[Datatype(spec.datatype)]).newbyteorder("<"))
    except (ValueError, KeyError) as error:
        raise BadMessage(f"{spec.name}: {len(data)} bytes cannot be {spec.datatype}") from error


def _from_contents(spec: Any) -> Array:
    if spec.datatype not in _CONTENTS:
        raise BadMessage(f"{spec.name}: {spec.datatype} has raw contents only")
    values = getattr(spec.contents, _CONTENTS[spec.datatype])
    try:
        return np.array(list(values), NUMPY[Datatype(spec.datatype)])
    except (OverflowError, ValueError) as error:
        raise BadMessage(f"{spec.name}: {error}") from error
