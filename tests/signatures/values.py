"""Made-up tensors that reach the edges of their datatypes, and the ways a protocol's answer becomes tensors again."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adapters.sample import NUMPY, Array
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from tests.lua.vectors import FLOATS

WORDS = ("", "a", "Grüße ☃", 'quo"te\\', "\n\t\x01", "水門" * 20)

_FINITE: Mapping[Datatype, Sequence[float]] = {
    Datatype.FP16: (0.1, -2.5, 65504.0, 6e-8, -0.0),
    Datatype.BF16: (0.1, -2.5, 3.3895313892515355e38, 1e-40, -0.0),
    Datatype.FP32: (0.1, -2.5, 3.4028234663852886e38, 1e-42, -0.0),
    Datatype.FP64: (0.1, -2.5, 1.7976931348623157e308, 5e-324, -0.0),
}
_NOT_FINITE = (float("nan"), float("inf"), float("-inf"))

DYNAMIC_SIZES = (2, 3, 1)
"""What stands for the dynamic dimensions of a tensor, in order."""


def inputs_of(signature: Signature, *, rows: int, finite: bool, optional: bool = True) -> dict[str, Array]:
    """An array per input: rows first for a model that batches. Without `optional`, the required ones alone."""
    return {
        spec.name: _array(spec, rows if signature.batching else None, signature.dynamic_size, finite=finite)
        for spec in signature.inputs
        if optional or not spec.optional
    }


def _array(spec: TensorSpec, rows: int | None, least: int, *, finite: bool) -> Array:
    sizes = iter(DYNAMIC_SIZES)
    shape = tuple(max(next(sizes), least) if d == DYNAMIC else d for d in spec.shape)
    whole = shape if rows is None else (rows, *shape)
    count = int(np.prod(whole, dtype=int))
    edges = _edges(spec.datatype, finite=finite)
    # Each tensor begins at an edge of its own.
    start = zlib.crc32(spec.name.encode()) % len(edges)
    values = [edges[(start + i) % len(edges)] for i in range(count)]
    return np.array(values, NUMPY[spec.datatype]).reshape(whole)


def _edges(datatype: Datatype, *, finite: bool) -> Sequence[Any]:
    if datatype is Datatype.BYTES:
        return WORDS
    if datatype is Datatype.BOOL:
        return (True, False, False)
    if datatype in FLOATS:
        return (*_FINITE[datatype], *(() if finite else _NOT_FINITE))
    dtype: Any = NUMPY[datatype]
    limits = np.iinfo(dtype)
    return (0, int(limits.max), int(limits.min), 1, 7)


def from_json(spec: TensorSpec, value: Any, shape: Sequence[int]) -> Array:
    """The tensor of nested JSON arrays, which must be nested as `shape` says (as far as there are elements)."""
    elements: list[Any] = []
    _collect(value, tuple(shape), elements)
    return np.array(elements, NUMPY[spec.datatype]).reshape(shape)


def _collect(value: Any, shape: tuple[int, ...], elements: list[Any]) -> None:
    if not shape:
        assert not isinstance(value, list)
        elements.append(float(value) if value in ("NaN", "Infinity", "-Infinity") else value)
        return
    assert isinstance(value, list)
    assert len(value) == shape[0]
    for part in value:
        _collect(part, shape[1:], elements)
