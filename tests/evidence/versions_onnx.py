"""Classifiers whose errors are known: the first input is the true class, the second decides who is wrong.

Exported as ONNX, so that the real stack serves them.
"""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from adapters.signature import Datatype
from tests.models import model, value


def wrong_between(low: float, high: float) -> bytes:
    """x = [true class 0 or 1, luck 0..1]; `label` is the true class, and the other one where low <= luck < high."""
    constants = {"low": low, "high": high, "half": 0.5}
    return model(
        [
            helper.make_node("Split", ["x"], ["true", "luck"], axis=1, num_outputs=2),
            helper.make_node("Greater", ["true", "half"], ["truth"]),
            helper.make_node("GreaterOrEqual", ["luck", "low"], ["above"]),
            helper.make_node("Less", ["luck", "high"], ["below"]),
            helper.make_node("And", ["above", "below"], ["wrong"]),
            helper.make_node("Xor", ["truth", "wrong"], ["said"]),
            helper.make_node("Cast", ["said"], ["column"], to=7),
            helper.make_node("Squeeze", ["column", "axes"], ["label"]),
        ],
        [value("x", Datatype.FP32, (2,))],
        [value("label", Datatype.INT64, ())],
        [
            *(numpy_helper.from_array(np.array(number, np.float32), name) for name, number in constants.items()),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
