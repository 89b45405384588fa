"""The body of POST /v1/feedback: every right one is read, every wrong one names its field."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.evidence.feedback_request import (
    MAX_ID,
    MAX_LABEL,
    MAX_ROWS,
    Entry,
    Feedback,
    InvalidFeedback,
    Kind,
    parse_feedback,
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.dictionaries(st.sampled_from(["request_id", "label", "reward", "row", "weight"]), anything, max_size=4)


def body(**value: Any) -> bytes:
    return json.dumps(value).encode()


def refusal_of(raw: bytes) -> InvalidFeedback | None:
    """Any other exception fails the test."""
    try:
        parse_feedback(raw)
    except InvalidFeedback as error:
        return error
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_are_too_odd(raw: bytes) -> None:
    refusal = refusal_of(raw)
    assert refusal is None or "expected" in str(refusal)


@given(fields)
def test_whatever_the_fields_hold_the_answer_is_feedback_or_a_named_field(value: dict[str, Any]) -> None:
    raw = json.dumps(value).encode()
    refusal = refusal_of(raw)
    if refusal is not None:
        assert refusal.expected
        assert refusal.received
        assert str(refusal).encode()
        return
    feedback = parse_feedback(raw)
    assert feedback.request_id == value["request_id"]
    assert all(entry.row >= 0 for entry in feedback.entries)
    assert all(isinstance(e.value, str) or math.isfinite(e.value) for e in feedback.entries)


@given(st.lists(st.integers() | st.text(max_size=8).filter(lambda t: t.isascii()), min_size=1, max_size=20))
def test_a_list_of_labels_is_one_entry_per_row(labels: list[Any]) -> None:
    feedback = parse_feedback(body(request_id="a", label=labels))
    assert feedback.entries == tuple(Entry(i, True, Kind.LABEL, label) for i, label in enumerate(labels))


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ({"label": 3}, Entry(0, False, Kind.LABEL, 3)),
        ({"label": 3, "row": 0}, Entry(0, True, Kind.LABEL, 3)),
        ({"label": "cat", "row": 2}, Entry(2, True, Kind.LABEL, "cat")),
        ({"label": False}, Entry(0, False, Kind.LABEL, False)),
        ({"label": 3, "reward": None}, Entry(0, False, Kind.LABEL, 3)),
        ({"reward": 1}, Entry(0, False, Kind.REWARD, 1.0)),
        ({"reward": -0.25}, Entry(0, False, Kind.REWARD, -0.25)),
    ],
)
def test_one_value(value: dict[str, Any], entry: Entry) -> None:
    assert parse_feedback(body(request_id="a", **value)) == Feedback("a", (entry,))


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        (b"", "", "an empty body"),
        (b" \n", "", "an empty body"),
        (b"nonsense", "", "not JSON"),
        (b"\xff\xfe", "", "not JSON"),
        (b"[" * 100_000, "", "not JSON"),
        (b"[]", "", r"received \[\]"),
        (b'"text"', "", "a JSON object"),
        (body(request_id="a"), "label", "received neither"),
        (body(request_id="a", label=1, reward=1), "label", "received both"),
        (body(request_id="a", label=1, weight=2), '"weight"', "an unknown field"),
        (body(label=1), "request_id", "received nothing"),
        (body(request_id=7, label=1), "request_id", "received 7"),
        (body(request_id="", label=1), "request_id", "received 0 characters"),
        (body(request_id="a" * (MAX_ID + 1), label=1), "request_id", f"received {MAX_ID + 1} characters"),
        (body(request_id="a b", label=1), "request_id", 'received "a b"'),
        (body(request_id="ä", label=1), "request_id", "visible ASCII"),
        (body(request_id="a", label={}), "label", "received {}"),
        (body(request_id="a", label=[]), "label", f"1 to {MAX_ROWS} values, received 0"),
        (body(request_id="a", label=[1] * (MAX_ROWS + 1)), "label", f"received {MAX_ROWS + 1}"),
        (body(request_id="a", label=[1, [2]]), "label[1]", r"received \[2\]"),
        (body(request_id="a", label="x" * (MAX_LABEL + 1)), "label", f"received {MAX_LABEL + 1} characters"),
        (b'{"request_id": "a", "label": "\\ud800"}', "label", "a text of at most"),
        (body(request_id="a", reward="high"), "reward", 'received "high"'),
        (body(request_id="a", reward=True), "reward", "received true"),
        (b'{"request_id": "a", "reward": Infinity}', "", "Infinity is not JSON"),
        (b'{"request_id": "a", "reward": 1e999}', "reward", "a finite number"),
        (b'{"request_id": "a", "reward": 1' + b"0" * 400 + b"}", "reward", "a finite number"),
        (body(request_id="a", label=1, row=-1), "row", "received -1"),
        (body(request_id="a", label=1, row=1.5), "row", r"received 1\.5"),
        (body(request_id="a", label=1, row=True), "row", "received true"),
        (body(request_id="a", label=[1, 2], row=1), "row", "no row when label lists every row"),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, field: str, words: str) -> None:
    with pytest.raises(InvalidFeedback, match=words) as refused:
        parse_feedback(raw)
    assert refused.value.field == (field if field != '"weight"' else "weight")
