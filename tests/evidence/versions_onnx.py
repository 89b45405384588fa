"""Classifiers whose errors are known: the first input is the true class, the second decides who is wrong, or fails.

Exported as ONNX, so that the real stack serves them.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from adapters.signature import Datatype
from tests.models import model, value


def wrong_between(low: float, high: float, *, fails_between: tuple[float, float] = (2.0, 2.0)) -> bytes:
    """x = [true class 0 or 1, luck 0..1]; `label` is the true class, and the other one where low <= luck < high.

    Where luck is in `fails_between` the run fails, by an index out of range.
    """
    constants = {"low": low, "high": high, "from": fails_between[0], "until": fails_between[1], "half": 0.5}
    return model(
        [
            helper.make_node("Split", ["x"], ["true", "luck"], axis=1, num_outputs=2),
            helper.make_node("Greater", ["true", "half"], ["truth"]),
            *_between("wrong", "low", "high"),
            *_between("fatal", "from", "until"),
            helper.make_node("Xor", ["truth", "wrong"], ["said"]),
            helper.make_node("Cast", ["said"], ["column"], to=7),
            helper.make_node("Cast", ["fatal"], ["index"], to=7),
            helper.make_node("Gather", ["zero", "index"], ["nothing"]),
            helper.make_node("Add", ["column", "nothing"], ["answer"]),
            helper.make_node("Squeeze", ["answer", "axes"], ["label"]),
        ],
        [value("x", Datatype.FP32, (2,))],
        [value("label", Datatype.INT64, ())],
        [
            *(numpy_helper.from_array(np.array(number, np.float32), name) for name, number in constants.items()),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
        ],
    )


def _between(name: str, low: str, high: str) -> list[NodeProto]:
    return [
        helper.make_node("GreaterOrEqual", ["luck", low], [f"{name}_above"]),
        helper.make_node("Less", ["luck", high], [f"{name}_below"]),
        helper.make_node("And", [f"{name}_above", f"{name}_below"], [name]),
    ]
