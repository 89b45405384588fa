"""The public API of a model, as values: what callers see, derived once from a signature and then locked.

Made by `gateway.contract.derive`; read by the .proto, descriptor and OpenAPI writers and by the Envoy compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.signature import Datatype, TensorSpec
from gateway.contract.names import package_word


class NoTypedApi(Exception):
    """The model is served through Open Inference Protocol alone: call it by that; its docs page shows how."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(
            f"model {contract.model!r} has no typed API: {'; '.join(contract.obstacles)}. It is served through Open "
            f"Inference Protocol: POST /v2/models/{contract.model}/infer, or gRPC inference.GRPCInferenceService"
        )


@dataclass(frozen=True, slots=True)
class ShapeField:
    """The companion of a tensor whose shape the number of its values does not tell: `repeated sfixed64`.

    It holds the tensor's whole shape without the batch dimension, fixed sizes too. `name` is its name in JSON, unique
    among the tensors' names. In JSON a nested array says its own shape; the companion is needed only beside flat
    values.
    """

    name: str
    proto_name: str
    number: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "proto_name": self.proto_name, "number": self.number}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShapeField:
        return cls(str(value["name"]), str(value["proto_name"]), int(value["number"]))


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor in the public API.

    `name` is the tensor's own name and the JSON name; `proto_name` the legal, unique proto identifier; `number`
    the proto field number. `proto_type` is a proto3 scalar ("float", "sfixed64", "string", "bytes" ...).
    `repeated` is false for scalars (shape `()`), which are `optional` so that absence shows. `shape_field` is there
    when the number of values does not tell the shape.
    """

    tensor: TensorSpec
    number: int
    proto_name: str
    proto_type: str
    repeated: bool
    shape_field: ShapeField | None = None

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def datatype(self) -> Datatype:
        return self.tensor.datatype

    @property
    def numbers(self) -> tuple[int, ...]:
        """The proto field numbers it takes: its own, and its shape's."""
        return (self.number,) if self.shape_field is None else (self.number, self.shape_field.number)

    def to_json(self) -> dict[str, Any]:
        return {
            "tensor": self.tensor.to_json(),
            "number": self.number,
            "proto_name": self.proto_name,
            "proto_type": self.proto_type,
            "repeated": self.repeated,
            **({"shape_field": self.shape_field.to_json()} if self.shape_field else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Field:
        shape_field = value.get("shape_field")
        return cls(
            tensor=TensorSpec.from_json(value["tensor"]),
            number=int(value["number"]),
            proto_name=str(value["proto_name"]),
            proto_type=str(value["proto_type"]),
            repeated=bool(value["repeated"]),
            shape_field=ShapeField.from_json(shape_field) if shape_field else None,
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """What callers of a model can rely on.

    `key` is the model's name as an identifier ("digits-v2" -> "digits_v2"), `service` its CamelCase form.
    Typed gRPC is `penstock.models.<key>.v<major>.<service>/Predict`; a key that languages reserve has a "_" behind it.
    `batching`: requests carry `instances`, each with the input fields; otherwise the request carries them itself.
    `decoupled`: answers come as a stream, by the method `PredictStream` instead of `Predict`.
    `dynamic_size` stands for the dynamic dimensions in examples; it is no promise.
    `obstacles` says, a sentence each, why there is no typed API: the model is then served through Open Inference
    Protocol alone, `inputs` and `outputs` are empty, and `untyped_inputs` and `untyped_outputs` hold its tensors.
    """

    model: str
    key: str
    service: str
    major: int
    batching: bool
    max_rows: int
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    obstacles: tuple[str, ...] = ()
    decoupled: bool = False
    untyped_inputs: tuple[TensorSpec, ...] = ()
    untyped_outputs: tuple[TensorSpec, ...] = ()
    dynamic_size: int = 1

    @property
    def typed(self) -> bool:
        return not self.obstacles

    @property
    def unary(self) -> bool:
        """Whether it has the typed call with one answer, which typed JSON carries too."""
        return self.typed and not self.decoupled

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """The input tensors, typed or not."""
        return tuple(field.tensor for field in self.inputs) if self.typed else self.untyped_inputs

    @property
    def gives(self) -> tuple[TensorSpec, ...]:
        """The output tensors, typed or not."""
        return tuple(field.tensor for field in self.outputs) if self.typed else self.untyped_outputs

    @property
    def package(self) -> str:
        return f"penstock.models.{package_word(self.key)}.v{self.major}"

    @property
    def full_service(self) -> str:
        return f"{self.package}.{self.service}"

    @property
    def method(self) -> str:
        """The service's one method."""
        return "PredictStream" if self.decoupled else "Predict"

    @property
    def predict_grpc_path(self) -> str:
        return f"/{self.full_service}/{self.method}"

    @property
    def predict_http_path(self) -> str:
        return f"/v{self.major}/models/{self.model}:predict"

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "key": self.key,
            "service": self.service,
            "major": self.major,
            "batching": self.batching,
            "max_rows": self.max_rows,
            "inputs": [f.to_json() for f in self.inputs],
            "outputs": [f.to_json() for f in self.outputs],
            **({"obstacles": list(self.obstacles)} if self.obstacles else {}),
            **({"decoupled": True} if self.decoupled else {}),
            **({"dynamic_size": self.dynamic_size} if self.dynamic_size != 1 else {}),
            **({"untyped_inputs": [t.to_json() for t in self.untyped_inputs]} if self.untyped_inputs else {}),
            **({"untyped_outputs": [t.to_json() for t in self.untyped_outputs]} if self.untyped_outputs else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Contract:
        return cls(
            model=str(value["model"]),
            key=str(value["key"]),
            service=str(value["service"]),
            major=int(value["major"]),
            batching=bool(value["batching"]),
            max_rows=int(value["max_rows"]),
            inputs=tuple(Field.from_json(f) for f in value["inputs"]),
            outputs=tuple(Field.from_json(f) for f in value["outputs"]),
            obstacles=tuple(str(o) for o in value.get("obstacles", ())),
            decoupled=bool(value.get("decoupled", False)),
            untyped_inputs=tuple(TensorSpec.from_json(t) for t in value.get("untyped_inputs", ())),
            untyped_outputs=tuple(TensorSpec.from_json(t) for t in value.get("untyped_outputs", ())),
            dynamic_size=int(value.get("dynamic_size", 1)),
        )
