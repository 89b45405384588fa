"""Labels are the same when they name the same class, whatever JSON type each side uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.evidence.labels import Label, same_label

labels = st.one_of(st.integers(), st.booleans(), st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize(
    ("predicted", "actual"),
    [
        (3, "3"),
        ("3", 3),
        (3, 3.0),
        (3, " 3 "),
        (9_007_199_254_740_993, "9007199254740993"),
        (True, 1),
        (True, "true"),
        (False, "0"),
        (0.5, "0.5"),
        ("cat", "cat"),
    ],
)
def test_same(predicted: Label, actual: Label) -> None:
    assert same_label(predicted, actual)


@pytest.mark.parametrize(
    ("predicted", "actual"),
    [
        (3, 4),
        ("3", "03"),
        ("cat", "Cat"),
        (9_007_199_254_740_993, "9007199254740992"),
        (True, 2),
        (True, "cat"),
        (3, "cat"),
        (3, "nan"),
        (3, "inf"),
        ("", 0),
        ("", False),
    ],
)
def test_different(predicted: Label, actual: Label) -> None:
    assert not same_label(predicted, actual)


@given(labels)
def test_every_label_is_itself(label: Label) -> None:
    assert same_label(label, label)


@given(labels, labels)
def test_it_does_not_matter_which_side_is_which(one: Label, other: Label) -> None:
    assert same_label(one, other) == same_label(other, one)


@given(st.integers())
def test_an_integer_is_its_text(number: int) -> None:
    assert same_label(number, str(number))
    assert not same_label(number, str(number + 1))
