"""Signature -> contract: the one place that decides what the public API of a model looks like.

Called when a version is registered, with the model's locked contract once there is one. A contract depends on
nothing but its arguments. Whether a new version may take the lock's place is `gateway.contract.compare`'s question;
what the lock is afterwards, `gateway.contract.growth`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.model import Contract, Field, ShapeField
from gateway.contract.names import check_model_name, model_key, proto_names, service_name, shape_names

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


def derive(model: str, signature: Signature, locked: Contract | None = None, major: int = 1) -> Contract:
    """The contract of a signature. With a lock, its names, numbers and major are kept and new tensors come after.

    A signature that cannot be typed becomes a contract with obstacles. Raises BadModelName, and nothing else.
    """
    check_model_name(model)
    obstacles = tuple(_obstacles(signature, locked))
    locked_inputs, locked_outputs = (locked.inputs, locked.outputs) if locked else ((), ())
    return Contract(
        model=model,
        key=model_key(model),
        service=service_name(model),
        major=locked.major if locked else major,
        batching=signature.batching,
        max_rows=signature.max_batch_size if signature.batching else 1,
        inputs=() if obstacles else _fields(signature.inputs, locked_inputs),
        outputs=() if obstacles else _fields(signature.outputs, locked_outputs),
        obstacles=obstacles,
        decoupled=signature.decoupled,
        untyped_inputs=signature.inputs if obstacles else (),
        untyped_outputs=signature.outputs if obstacles else (),
        dynamic_size=signature.dynamic_size,
    )


def needs_shape_field(shape: Sequence[int]) -> bool:
    """Whether the number of a tensor's values leaves its shape open: one dynamic size is inferred, two are not."""
    return shape.count(DYNAMIC) > 1 or (DYNAMIC in shape and 0 in shape)


def _fields(tensors: Sequence[TensorSpec], locked: Sequence[Field]) -> tuple[Field, ...]:
    before = {field.name: field for field in locked}
    fresh = _numbers_after(max((number for field in locked for number in field.numbers), default=0))
    names = proto_names([tensor.name for tensor in tensors], _locked_names(locked))
    shapes = _shape_fields(tensors, locked, names)
    fields = []
    for tensor in tensors:
        old = before.get(tensor.name)
        # The tensor's own number is drawn first, so that its shape follows it.
        number = old.number if old else next(fresh)
        shape_field = old.shape_field if old else None
        if shape_field is None and tensor.name in shapes:
            shape_field = ShapeField(*shapes[tensor.name], number=next(fresh))
        fields.append(
            Field(
                tensor=tensor,
                number=number,
                proto_name=names[tensor.name],
                proto_type=PROTO_TYPES[tensor.datatype],
                repeated=tensor.shape != () and PROTO_TYPES[tensor.datatype] != "bytes",
                shape_field=shape_field,
            )
        )
    return tuple(sorted(fields, key=lambda field: field.number))


def _locked_names(locked: Sequence[Field]) -> dict[str, str]:
    """Proto names by JSON name, of tensors and of their shapes."""
    shapes = [field.shape_field for field in locked if field.shape_field]
    return {f.name: f.proto_name for f in locked} | {s.name: s.proto_name for s in shapes}


def _shape_fields(
    tensors: Sequence[TensorSpec], locked: Sequence[Field], names: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """JSON and proto name of each shape that is needed and not locked yet, by tensor. `names`: the tensors' own."""
    have = {field.name for field in locked if field.shape_field}
    need = [tensor.name for tensor in tensors if needs_shape_field(tensor.shape) and tensor.name not in have]
    taken = _locked_names(locked) | dict(names)
    public = shape_names(need, taken)
    proto = proto_names(list(public.values()), taken)
    return {tensor: (public[tensor], proto[public[tensor]]) for tensor in need}


def _numbers_after(last: int) -> Iterator[int]:
    """Free field numbers; 19000-19999 belong to protobuf itself."""
    return chain((n for n in range(last + 1, 19_000)), count(max(last + 1, 20_000)))


def _obstacles(signature: Signature, locked: Contract | None) -> Iterator[str]:
    yield from signature.obstacles
    yield from _side("input", signature.inputs, locked.inputs if locked else ())
    yield from _side("output", signature.outputs, locked.outputs if locked else ())


def _side(side: str, tensors: Sequence[TensorSpec], locked: Sequence[Field]) -> Iterator[str]:
    if not tensors:
        yield f"the model has no {side}s"
    seen: set[str] = set()
    shapes = {field.shape_field.name: field.name for field in locked if field.shape_field}
    for tensor in tensors:
        if why := _obstacle(tensor):
            yield f"{side} {tensor.name!r}: {why}"
        if tensor.name in seen:
            yield f"{side} {tensor.name!r}: two {side}s have this name"
        if tensor.name in shapes:
            yield f"{side} {tensor.name!r}: the API has this name already, for the shape of {shapes[tensor.name]!r}"
        seen.add(tensor.name)


def _obstacle(tensor: TensorSpec) -> str:
    shape = list(tensor.shape)
    if not tensor.name:
        return f"a tensor of shape {shape} has no name"
    if not _is_unicode(tensor.name):
        return "its name is not valid Unicode"
    if any(d < 0 and d != DYNAMIC for d in shape):
        return f"shape {shape} has a dimension that is neither a size nor -1"
    return ""


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate: no protobuf and no JSON can carry it
        return False
    return True
