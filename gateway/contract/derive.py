"""Signature -> contract: the one place that decides what the public API of a model looks like.

Called when a version is registered, with the model's locked contract once there is one. A contract depends on
nothing but its arguments. Whether a new version may take the lock's place is `gateway.contract.compare`'s question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.model import Contract, Field
from gateway.contract.names import check_model_name, model_key, proto_names, service_name

PROTO_TYPES: Mapping[Datatype, str] = {
    Datatype.BOOL: "bool",
    Datatype.UINT8: "bytes",
    Datatype.INT8: "bytes",
    Datatype.UINT16: "fixed32",
    Datatype.INT16: "sfixed32",
    Datatype.UINT32: "fixed32",
    Datatype.INT32: "sfixed32",
    Datatype.UINT64: "fixed64",
    Datatype.INT64: "sfixed64",
    Datatype.FP16: "float",
    Datatype.BF16: "float",
    Datatype.FP32: "float",
    Datatype.FP64: "double",
    Datatype.BYTES: "string",
}
"""Fixed-width types, because a packed repeated fixed-width field is the little-endian tensor: Envoy only slices it.
UINT8 and INT8 have no fixed-width proto type of one byte; `bytes`, one byte per element, is theirs."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why one tensor (or, with an empty `tensor`, the whole signature) cannot be typed."""

    tensor: str
    why: str

    def __str__(self) -> str:
        return f"{self.tensor!r}: {self.why}" if self.tensor else self.why


class Untypable(Exception):
    """No typed API can be made of this signature; Open Inference Protocol still serves the model.

    `obstacles` lists every reason, for the deployment's answer and the docs page.
    """

    def __init__(self, model: str, obstacles: tuple[Obstacle, ...]) -> None:
        self.model = model
        self.obstacles = obstacles
        reasons = "; ".join(str(o) for o in obstacles)
        super().__init__(f"model {model!r} gets no typed API: {reasons}. It is served through Open Inference Protocol")


def derive(model: str, signature: Signature, locked: Contract | None = None, major: int = 1) -> Contract:
    """The contract of a signature. With a lock, its names, numbers and major are kept and new tensors come after.

    Raises BadModelName, and Untypable with every obstacle found.
    """
    check_model_name(model)
    obstacles = (*_obstacles("inputs", signature.inputs), *_obstacles("outputs", signature.outputs))
    if obstacles:
        raise Untypable(model, obstacles)
    return Contract(
        model=model,
        key=model_key(model),
        service=service_name(model),
        major=locked.major if locked else major,
        batching=signature.batching,
        max_rows=signature.max_batch_size if signature.batching else 1,
        inputs=_fields(signature.inputs, locked.inputs if locked else ()),
        outputs=_fields(signature.outputs, locked.outputs if locked else ()),
    )


def _fields(tensors: Sequence[TensorSpec], locked: Sequence[Field]) -> tuple[Field, ...]:
    numbers = {field.name: field.number for field in locked}
    names = proto_names([t.name for t in tensors], {field.name: field.proto_name for field in locked})
    fresh = _numbers_after(max(numbers.values(), default=0))
    fields = [
        Field(
            tensor=tensor,
            number=numbers[tensor.name] if tensor.name in numbers else next(fresh),
            proto_name=names[tensor.name],
            proto_type=PROTO_TYPES[tensor.datatype],
            repeated=tensor.shape != () and PROTO_TYPES[tensor.datatype] != "bytes",
        )
        for tensor in tensors
    ]
    return tuple(sorted(fields, key=lambda field: field.number))


def _numbers_after(last: int) -> Iterator[int]:
    """Free field numbers; 19000-19999 belong to protobuf itself."""
    return chain((n for n in range(last + 1, 19_000)), count(max(last + 1, 20_000)))


def _obstacles(side: str, tensors: Sequence[TensorSpec]) -> Iterator[Obstacle]:
    if not tensors:
        yield Obstacle("", f"the signature has no {side}")
    seen: set[str] = set()
    for tensor in tensors:
        if why := _obstacle(tensor):
            yield Obstacle(tensor.name, why)
        if tensor.name in seen:
            yield Obstacle(tensor.name, f"two {side} have this name")
        seen.add(tensor.name)


def _obstacle(tensor: TensorSpec) -> str:
    shape = list(tensor.shape)
    if not tensor.name:
        return f"a tensor of shape {shape} has no name"
    if not _is_unicode(tensor.name):
        return "its name is not valid Unicode"
    if any(d < 0 and d != DYNAMIC for d in shape):
        return f"shape {shape} has a dimension that is neither a size nor -1"
    if shape.count(DYNAMIC) > 1:
        return (
            f"shape {shape} has {shape.count(DYNAMIC)} dynamic dimensions; one can be inferred from the number of "
            "values, more cannot. Export the model with fixed dimensions, or call it by Open Inference Protocol"
        )
    if DYNAMIC in shape and 0 in shape:
        return f"shape {shape} has no values, so its dynamic dimension cannot be inferred from their number"
    return ""


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate: no protobuf and no JSON can carry it
        return False
    return True
