"""A model's API as its callers find it: read from the gateway's own documents, nothing imported from it.

gRPC reflection tells the messages of the typed API and of the Open Inference Protocol, `/v2/models/<model>` the
tensors, the OpenAPI document an example. Used by the Locust users to make request bytes once, before the first
request, so that the load generator spends its time on sending.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from loadtest.examples import Example
from loadtest.inputs import Tensor, blank
from loadtest.messages import elements, raw_contents, tensor_shape, typed_row

INFER_SERVICE = "inference.GRPCInferenceService"


class UnknownModel(Exception):
    """The gateway serves no such model; the message names those it serves."""


class WrongExample(Exception):
    """An example does not fit the model's contract; the message says which field."""


@dataclass(frozen=True, slots=True)
class TypedApi:
    """One model's typed API: `Predict` on `grpc_path`, and the same as JSON on `http_path`."""

    model: str
    grpc_path: str
    http_path: str
    request: Descriptor
    response: Descriptor

    @property
    def batching(self) -> bool:
        """Whether requests carry `instances`, each with the inputs, or the inputs themselves."""
        return self.row is not self.request

    @property
    def row(self) -> Descriptor:
        """The message that carries one instance's inputs."""
        instances = self.request.fields_by_name.get("instances")
        return self.request if instances is None or instances.message_type is None else instances.message_type

    def json_body(self, example: Example) -> str:
        return json.dumps(self._body(example.instance), separators=(",", ":"))

    def grpc_body(self, example: Example) -> bytes:
        """The serialised PredictRequest of one example. Raises WrongExample."""
        message: Message = GetMessageClass(self.request)()
        try:
            json_format.ParseDict(self._body(typed_row(example.instance, self.row)), message)
        except json_format.ParseError as error:
            raise WrongExample(f"an example does not fit {self.request.full_name}: {error}") from error
        return message.SerializeToString()

    def answered(self, body: bytes) -> bool:
        """Whether a serialised PredictResponse carries an answer."""
        message: Message = GetMessageClass(self.response)()
        message.ParseFromString(body)
        return bool(message.ListFields())

    def _body(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        return {"instances": [dict(instance)]} if self.batching else dict(instance)


@dataclass(frozen=True, slots=True)
class InferApi:
    """The same model through the Open Inference Protocol: `ModelInfer`, and `POST http_path`.

    `batching` says whether an instance's tensors lack the first dimension of the tensors here.
    """

    model: str
    inputs: tuple[Tensor, ...]
    batching: bool
    request: Descriptor
    response: Descriptor

    @property
    def grpc_path(self) -> str:
        return f"/{INFER_SERVICE}/ModelInfer"

    @property
    def http_path(self) -> str:
        return f"/v2/models/{quote(self.model, safe='')}/infer"

    def json_body(self, example: Example) -> str:
        """Raises WrongExample."""
        inputs = [
            {"name": tensor.name, "shape": list(shape), "datatype": tensor.datatype, "data": values}
            for tensor, shape, values in self._tensors(example)
        ]
        return json.dumps({"inputs": inputs}, separators=(",", ":"))

    def grpc_body(self, example: Example) -> bytes:
        """The serialised ModelInferRequest of one example, with raw contents. Raises WrongExample."""
        message: Any = GetMessageClass(self.request)()
        message.model_name = self.model
        for tensor, shape, values in self._tensors(example):
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
            try:
                message.raw_input_contents.append(raw_contents(values, tensor.datatype))
            except (struct.error, AttributeError, TypeError, OverflowError) as error:
                raise WrongExample(f"{tensor.name}: no {tensor.datatype}: {error}") from error
        body: bytes = message.SerializeToString()
        return body

    def answered(self, body: bytes) -> bool:
        """Whether a serialised ModelInferResponse carries an answer."""
        message: Any = GetMessageClass(self.response)()
        message.ParseFromString(body)
        return bool(message.outputs)

    def _tensors(self, example: Example) -> list[tuple[Tensor, tuple[int, ...], list[Any]]]:
        unknown = set(example.instance) - {tensor.name for tensor in self.inputs}
        if unknown:
            names = ", ".join(tensor.name for tensor in self.inputs)
            raise WrongExample(f"an example has the input {min(unknown)!r}; {self.model} takes {names}")
        return [
            (tensor, tensor_shape(value, tensor, batching=self.batching), elements(value, tensor.datatype))
            for tensor in self.inputs
            if (value := example.instance.get(tensor.name)) is not None
        ]


@dataclass(frozen=True, slots=True)
class ModelApi:
    """Every way to ask one model. `typed` is None for a model that is served through Open Inference alone.

    `form` is one instance with values of the right shape, for random inputs; `datatypes` are by input.
    """

    model: str
    typed: TypedApi | None
    infer: InferApi
    form: Mapping[str, Any]

    @property
    def datatypes(self) -> Mapping[str, str]:
        return {tensor.name: tensor.datatype for tensor in self.infer.inputs}


def find_model(channel: grpc.Channel, model: str) -> TypedApi:
    """Ask the gateway behind `channel` for the model's API (the newest major). Raises UnknownModel, grpc.RpcError."""
    database = ProtoReflectionDescriptorDatabase(channel)
    served = _majors(database, model)
    if not served:
        names = ", ".join(sorted(_keys(database))) or "no model at all"
        raise UnknownModel(f"model {model!r}: expected a model the gateway serves, which are: {names}")
    major = max(served)
    methods = DescriptorPool(database).FindServiceByName(served[major]).methods_by_name
    if "Predict" not in methods:
        raise UnknownModel(f"model {model!r} answers as a stream (PredictStream), which load tests cannot send yet")
    return TypedApi(
        model=model,
        grpc_path=f"/{served[major]}/Predict",
        http_path=f"/v{major}/models/{quote(model, safe='')}:predict",
        request=methods["Predict"].input_type,
        response=methods["Predict"].output_type,
    )


def model_api(
    channel: grpc.Channel, model: str, *, metadata: Mapping[str, Any], document: Mapping[str, Any] | None
) -> ModelApi:
    """Every way to ask the model. Raises UnknownModel, grpc.RpcError.

    `metadata` is the answer of `/v2/models/<model>`; `document` the model's OpenAPI document, None where it has no
    typed API.
    """
    database = ProtoReflectionDescriptorDatabase(channel)
    typed = find_model(channel, model) if _majors(database, model) else None
    infer = DescriptorPool(database).FindServiceByName(INFER_SERVICE).methods_by_name["ModelInfer"]
    batching = typed is not None and typed.batching
    inputs = tuple(
        Tensor(tensor["name"], tensor["datatype"], tuple(int(size) for size in tensor["shape"]))
        for tensor in metadata["inputs"]
    )
    return ModelApi(
        model=model,
        typed=typed,
        infer=InferApi(model, inputs, batching, infer.input_type, infer.output_type),
        form=form_of(typed, inputs, document or {}),
    )


def form_of(typed: TypedApi | None, inputs: tuple[Tensor, ...], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """One instance's values in the shape that the model takes: the contract's own example, from its OpenAPI document.

    Where that is too large to be in the document, or there is none, one is made of the tensors' shapes.
    """
    if typed is None:
        return blank(inputs)
    operation = document.get("paths", {}).get(typed.http_path, {}).get("post", {})
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if body is not None:
        instance: Mapping[str, Any] = body["instances"][0] if typed.batching else body
        known = {tensor.name for tensor in inputs}
        return {name: value for name, value in instance.items() if name in known}
    rows = tuple(Tensor(t.name, t.datatype, t.shape[1:] if typed.batching else t.shape) for t in inputs)
    scalars = {field.json_name for field in typed.row.fields if field.has_presence and not _is_bytes(field)}
    return {name: _first(value) if name in scalars else value for name, value in blank(rows).items()}


def _is_bytes(field: FieldDescriptor) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_BYTES)


def _first(value: Any) -> Any:
    return _first(value[0]) if isinstance(value, list) else value


def _services(database: ProtoReflectionDescriptorDatabase) -> list[list[str]]:
    """Every typed service's name, cut at its dots: penstock, models, key (or `key_`, a reserved word), v1, Service."""
    return [name.split(".") for name in database.get_services() if name.startswith("penstock.models.")]


def _keys(database: ProtoReflectionDescriptorDatabase) -> set[str]:
    return {parts[2].rstrip("_") for parts in _services(database)}


def _majors(database: ProtoReflectionDescriptorDatabase, model: str) -> dict[int, str]:
    key = model.replace("-", "_")
    return {
        int(parts[3].removeprefix("v")): ".".join(parts) for parts in _services(database) if parts[2].rstrip("_") == key
    }
