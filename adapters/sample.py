"""Made-up inputs: what a version is asked to prove that it answers at all.

Used by the ONNX probe (does the model batch?) and by `probe` of every inference server (is the version ready?).
Pure: numpy only, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from adapters.signature import DYNAMIC, Datatype, TensorSpec

Array = NDArray[Any]

NUMPY: Final[dict[Datatype, type[np.generic]]] = {
    Datatype.BOOL: np.bool_,
    Datatype.UINT8: np.uint8,
    Datatype.UINT16: np.uint16,
    Datatype.UINT32: np.uint32,
    Datatype.UINT64: np.uint64,
    Datatype.INT8: np.int8,
    Datatype.INT16: np.int16,
    Datatype.INT32: np.int32,
    Datatype.INT64: np.int64,
    Datatype.FP16: np.float16,
    Datatype.BF16: ml_dtypes.bfloat16,
    Datatype.FP32: np.float32,
    Datatype.FP64: np.float64,
    Datatype.BYTES: np.object_,
}
"""numpy's type per datatype; BF16's comes from ml_dtypes, as numpy has none."""

DYNAMIC_SIZES: Final = (1, 8, 32, 224)
"""What stands for a dynamic dimension, tried in this order: some models need more than one step or pixel."""

_MOST_ELEMENTS: Final = 1 << 24
"""A made-up tensor never has more elements than this, however many dynamic dimensions it has."""


def required(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs that a made-up request gives: those that must be given, or all where none must."""
    return tuple(spec for spec in specs if not spec.optional) or tuple(specs)


def zeros(specs: Sequence[TensorSpec], *, rows: int | None) -> Iterator[dict[str, Array]]:
    """Inputs of zeros, false and empty strings, once per size that may stand for the dynamic dimensions.

    `rows` is the batch dimension, None for a model that does not batch. At least one set is always given.
    """
    dynamic = any(DYNAMIC in spec.shape for spec in specs)
    for size in DYNAMIC_SIZES if dynamic else DYNAMIC_SIZES[:1]:
        shapes = {spec.name: _shape(spec, size, rows) for spec in specs}
        if size != DYNAMIC_SIZES[0] and any(math.prod(shape) > _MOST_ELEMENTS for shape in shapes.values()):
            return
        yield {spec.name: _zeros(spec.datatype, shapes[spec.name]) for spec in specs}


def scatter(like: dict[str, Array], seed: int) -> dict[str, Array]:
    """Inputs of the shapes and types of `like` with small made-up values, the same for the same seed.

    Whole numbers stay 0 or 1, so that an index or a token is in range wherever any is.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name, array in like.items():
        if array.dtype == np.object_:
            made[name] = rng.choice(np.array(["", "a", "b"], np.object_), size=array.shape)
        elif array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16:
            made[name] = np.asarray(rng.random(array.shape)).astype(array.dtype)
        else:
            made[name] = np.asarray(rng.integers(0, 2, size=array.shape)).astype(array.dtype)
    return made


def _shape(spec: TensorSpec, size: int, rows: int | None) -> tuple[int, ...]:
    shape = tuple(size if dimension == DYNAMIC else dimension for dimension in spec.shape)
    return shape if rows is None else (rows, *shape)


def _zeros(datatype: Datatype, shape: tuple[int, ...]) -> Array:
    if datatype is Datatype.BYTES:
        return np.full(shape, "", np.object_)
    return np.zeros(shape, NUMPY[datatype])
