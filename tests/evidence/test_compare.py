"""Two answers agree by label where there is one, and by tolerance where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from adapters.triton.inference import Tensor
from rollout.evidence.mirror.compare import FARTHEST, compare, row_labels
from rollout.evidence.mirror.wire import Pair, Side

PAIR = Pair("digits", "digits", Side(1, "digits.1", "1"), Side(2, "digits.2", "1"), label="label")
PLAIN = replace(PAIR, label="")


def tensor(name: str, values: Any, kind: Any = np.float32, datatype: str = "FP32") -> Tensor:
    return Tensor(name, datatype, np.array(values, kind))


def labels(*values: int) -> Tensor:
    return tensor("label", values, np.int64, "INT64")


def test_labels_decide_whatever_the_scores_are() -> None:
    found = compare(PAIR, [labels(1, 0), tensor("p", [0.9, 0.1])], [labels(1, 0), tensor("p", [0.6, 0.4])])
    assert (found.agreed, found.same_schema, found.labels) == (True, True, ((1, 0), (1, 0)))
    assert found.distance == pytest.approx(0.3 / (1e-6 + 0.01 * 0.1), rel=1e-3)


def test_one_row_of_another_label_is_a_disagreement() -> None:
    assert not compare(PAIR, [labels(1, 0)], [labels(1, 1)]).agreed


def test_without_a_label_every_output_must_be_within_the_tolerance() -> None:
    assert compare(PLAIN, [tensor("y", [100.0])], [tensor("y", [100.9])]).agreed
    assert not compare(PLAIN, [tensor("y", [100.0])], [tensor("y", [101.1])]).agreed


@pytest.mark.parametrize(
    "candidate",
    [
        tensor("y", [1.0, 2.0]),
        tensor("z", [1.0]),
        tensor("y", [1.0], np.float64, "FP64"),
    ],
)
def test_another_schema_is_a_disagreement(candidate: Tensor) -> None:
    found = compare(PLAIN, [tensor("y", [1.0])], [candidate])
    assert (found.agreed, found.same_schema) == (False, False)


def test_equal_infinities_and_nans_agree_and_one_alone_does_not() -> None:
    odd = [np.nan, np.inf, -np.inf]
    assert compare(PLAIN, [tensor("y", odd)], [tensor("y", odd)]).distance == 0.0
    for broken in ([0.0, np.inf, -np.inf], [np.nan, 1.0, -np.inf], [np.nan, np.inf, np.inf]):
        assert compare(PLAIN, [tensor("y", odd)], [tensor("y", broken)]).distance == FARTHEST


def test_text_is_equal_or_it_is_not() -> None:
    yes, no = (tensor("y", [word], np.object_, "BYTES") for word in (b"yes", b"no"))
    assert compare(PLAIN, [yes], [yes]).agreed
    assert not compare(PLAIN, [yes], [no]).agreed


def test_the_label_of_a_vector_is_its_largest_value() -> None:
    assert row_labels(tensor("label", [[0.1, 0.9], [0.8, np.nan]]), batching=True) == (1, 0)
    assert row_labels(tensor("label", [0.1, 0.9, 0.5]), batching=False) == (1,)


def test_labels_of_text_are_words() -> None:
    assert row_labels(tensor("label", [[b"cat"], [b"dog"]], np.object_, "BYTES"), batching=True) == ("cat", "dog")


@given(
    arrays.arrays(np.float32, arrays.array_shapes(max_dims=3)),
    arrays.arrays(np.float32, arrays.array_shapes(max_dims=3)),
    st.sampled_from([PAIR, PLAIN]),
)
def test_whatever_two_versions_answer_can_be_compared(a: Any, b: Any, pair: Pair) -> None:
    found = compare(pair, [Tensor("label", "FP32", a)], [Tensor("label", "FP32", b)])
    assert found.distance is None or 0.0 <= found.distance <= FARTHEST
    assert compare(pair, [Tensor("label", "FP32", a)], [Tensor("label", "FP32", a)]).agreed
