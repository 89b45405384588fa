"""Class names in ONNX metadata: the forms that exporters write, and whose they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.onnx.labels import parse_labels, with_labels
from adapters.signature import Datatype, TensorSpec

LABEL = TensorSpec("label", Datatype.INT64, ())
SCORES = TensorSpec("scores", Datatype.FP32, (3,))
BOXES = TensorSpec("boxes", Datatype.FP32, (8400, 4))


@pytest.mark.parametrize(
    "text",
    [
        "{0: 'cat', 1: 'dog', 2: 'bird'}",
        '{"0": "cat", "1": "dog", "2": "bird"}',
        '["cat", "dog", "bird"]',
        "('cat', 'dog', 'bird')",
        "cat, dog, bird",
        "cat\ndog\nbird\n",
    ],
)
def test_every_form_is_read(text: str) -> None:
    assert parse_labels(text) == ("cat", "dog", "bird")


@pytest.mark.parametrize("text", ["", "  ", "{1: 'dog'}", "[1, 2]", '{"a": "b"}', "3", "[", "cat,,bird", '["a", null]'])
def test_what_is_no_list_without_gaps_is_none(text: str) -> None:
    assert parse_labels(text) in {(), ("[",)}


@given(st.text(max_size=200) | st.text("{}[]()',:0123456789 \n", max_size=60))
def test_any_text_is_read_or_left_alone(text: str) -> None:
    assert all(isinstance(name, str) and name for name in parse_labels(text))


@given(st.lists(st.text(min_size=1), min_size=1))
def test_json_is_read_as_it_is(names: list[str]) -> None:
    assert parse_labels(json.dumps(names)) == tuple(names)


def labelled(*outputs: TensorSpec, **metadata: str) -> dict[str, tuple[str, ...]]:
    return {spec.name: spec.labels for spec in with_labels(outputs, metadata)}


def test_names_belong_to_the_scores_and_to_the_index_beside_them() -> None:
    found = labelled(LABEL, SCORES, BOXES, labels="a,b,c")
    assert found == {"label": ("a", "b", "c"), "scores": ("a", "b", "c"), "boxes": ()}


def test_names_that_fit_nothing_or_several_are_left_alone() -> None:
    assert set(labelled(LABEL, SCORES, labels="a,b").values()) == {()}
    twice = TensorSpec("more", Datatype.FP32, (3,))
    assert set(labelled(LABEL, SCORES, twice, labels="a,b,c").values()) == {()}


def test_an_output_can_be_named() -> None:
    found = with_labels((LABEL, SCORES), {"labels.label": "x,y", "labels": "a,b,c"})
    assert [spec.labels for spec in found] == [("x", "y"), ("a", "b", "c")]
