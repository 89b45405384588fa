"""A tensor in the words of Python's type hints and numpy, for the generated Python module."""

from __future__ import annotations

import json
from dataclasses import dataclass

from adapters.signature import DYNAMIC, Datatype
from gateway.contract.model import Field
from gateway.contract.words import values_in_words

_NUMPY = {
    Datatype.BOOL: "np.bool_",
    Datatype.UINT8: "np.uint8",
    Datatype.UINT16: "np.uint16",
    Datatype.UINT32: "np.uint32",
    Datatype.UINT64: "np.uint64",
    Datatype.INT8: "np.int8",
    Datatype.INT16: "np.int16",
    Datatype.INT32: "np.int32",
    Datatype.INT64: "np.int64",
    Datatype.FP16: "np.float16",
    Datatype.BF16: "np.float32",
    Datatype.FP32: "np.float32",
    Datatype.FP64: "np.float64",
    Datatype.BYTES: "np.str_",
}
"""numpy has no BF16; float32 holds all of its values."""

_SCALAR = {Datatype.BOOL: "bool", Datatype.BYTES: "str"}


@dataclass(frozen=True, slots=True)
class PythonField:
    """`attribute` is the Python name, `key` the quoted JSON name. `given` and `got`: types of an input, an output.

    `read` makes the output from the value called `value`.
    """

    attribute: str
    key: str
    words: str
    optional: bool
    given: str
    got: str
    read: str


def python_field(field: Field) -> PythonField:
    dtype = _NUMPY[field.datatype]
    if field.tensor.shape == ():
        floats = field.datatype in (Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64)
        scalar = _SCALAR.get(field.datatype, "float" if floats else "int")
        one_byte = field.datatype in (Datatype.UINT8, Datatype.INT8)
        given, got, read = (
            scalar,
            scalar,
            f"{scalar}(array_of(value, {dtype}).item())" if one_byte else f"{scalar}(value)",
        )
    else:
        given, got = "ArrayLike", f"NDArray[{dtype}]"
        # Typed gRPC answers are flat, JSON answers nested; a shape with one dynamic dimension fits both.
        shaped = 0 not in field.tensor.shape and sum(size == DYNAMIC for size in field.tensor.shape) <= 1
        shape = ", ".join(str(size) for size in field.tensor.shape)
        read = f"array_of(value, {dtype})" + (f".reshape({shape})" if shaped and len(field.tensor.shape) > 1 else "")
    return PythonField(
        attribute=field.proto_name,
        key=json.dumps(field.name, ensure_ascii=False),
        words=values_in_words(field.tensor),
        optional=field.tensor.optional,
        given=f"{given} | None" if field.tensor.optional else given,
        got=got,
        read=read,
    )
