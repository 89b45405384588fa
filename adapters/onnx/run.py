"""One run of an onnxruntime session with numpy arrays, bfloat16 included.

onnxruntime takes bfloat16 from numpy only as its 16 bits and gives none back; here it is ml_dtypes' bfloat16 on both
sides. Used by the probe, and by tests that ask onnxruntime what a served model must answer.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from adapters.sample import Array

_BFLOAT16: Final = "tensor(bfloat16)"


def run(session: ort.InferenceSession, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of these names, in order. Raises what onnxruntime raises."""
    takes = (*session.get_inputs(), *session.get_overridable_initializers())
    if not any(node.type == _BFLOAT16 for node in (*takes, *session.get_outputs())):
        return [np.asarray(output) for output in session.run(list(names), dict(feeds))]
    values = {name: _value(array) for name, array in feeds.items()}
    return [_array(value) for value in session.run_with_ort_values(list(names), values)]


def _value(array: Array) -> Any:
    if array.dtype == ml_dtypes.bfloat16:
        bits = np.asarray(array, order="C").view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _array(value: Any) -> Array:
    if value.data_type() != _BFLOAT16:
        return np.asarray(value.numpy())
    shape = value.shape()
    bits: Array = np.empty(shape, np.uint16)
    if bits.size:
        bits = np.array((ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr()), np.uint16).reshape(shape)
    return bits.view(ml_dtypes.bfloat16)
