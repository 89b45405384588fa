"""Model names are checked with a useful answer; tensor names become identifiers that no compiler refuses."""

from __future__ import annotations

import keyword
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.names import (
    BadModelName,
    check_model_name,
    model_key,
    package_word,
    proto_names,
    service_name,
    to_identifier,
)

LEGAL = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@pytest.mark.parametrize("name", ["a", "iris", "digits-v2", "a_b-c1", "resnet50", "x" * 63])
def test_an_allowed_name_is_taken(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Iris", "iris"),
        ("MyModel", "my-model"),
        ("my model", "my-model"),
        ("a--b", "a-b"),
        ("-a_", "a"),
        ("a_-b", "a_b"),
        ("modèle", "modele"),
        ("x" * 64, "x" * 63),
        ("team/model.v1", "team-model-v1"),
    ],
)
def test_a_refused_name_comes_with_one_that_is_allowed(name: str, suggestion: str) -> None:
    with pytest.raises(BadModelName, match=re.escape(f"try {suggestion!r}")):
        check_model_name(name)
    assert check_model_name(suggestion) == suggestion


@pytest.mark.parametrize("name", ["", "123", "模型", "--"])
def test_a_name_without_anything_to_keep_gets_no_suggestion(name: str) -> None:
    with pytest.raises(BadModelName, match=r"begin with a letter$"):
        check_model_name(name)


def test_the_length_rule_is_said_in_numbers() -> None:
    with pytest.raises(BadModelName, match="64 characters, at most 63"):
        check_model_name("x" * 64)


@given(st.text(max_size=80))
def test_every_suggestion_is_itself_allowed(name: str) -> None:
    try:
        check_model_name(name)
    except BadModelName as refused:
        if suggested := re.search(r"; try '(.*)'$", str(refused)):
            check_model_name(suggested[1])


def test_key_and_service_follow_from_the_name() -> None:
    assert (model_key("digits-v2"), service_name("digits-v2")) == ("digits_v2", "DigitsV2")


@pytest.mark.parametrize("name", ["instance", "prediction", "predict-request", "predict_response"])
def test_a_service_never_has_a_messages_name(name: str) -> None:
    assert service_name(name).endswith("Service")


@pytest.mark.parametrize(
    ("tensor", "identifier"),
    [
        ("x", "x"),
        ("X", "X"),
        ("a__b", "a__b"),
        ("input:0", "input_0"),
        ("dense/BiasAdd", "dense_BiasAdd"),
        ("x.1", "x_1"),
        ("0", "tensor_0"),
        ("_x_", "x"),
        ("größe", "grosse"),
        ("温度", "u6e29_u5ea6"),
        ("½", "tensor_1_2"),
        ("", "tensor"),
        ("class", "class_value"),
        ("lambda", "lambda_value"),
        ("message", "message_value"),
        ("DESCRIPTOR", "DESCRIPTOR_value"),
    ],
)
def test_tensor_names_become_the_nearest_identifier(tensor: str, identifier: str) -> None:
    assert to_identifier(tensor) == identifier


def test_a_legal_name_is_kept_whatever_comes_before_it() -> None:
    assert proto_names(["x.1", "x_1", "x1"]) == {"x.1": "x_1_3", "x_1": "x_1", "x1": "x1_2"}


def test_locked_names_are_kept_and_never_given_away() -> None:
    locked = {"gone": "a", "x.1": "x_1"}
    assert proto_names(["x.1", "x_1", "a"], locked) == {"x.1": "x_1", "x_1": "x_1_2", "a": "a_2"}


def test_no_field_has_the_name_of_anothers_accessor() -> None:
    assert proto_names(["image", "image_size"]) == {"image": "image", "image_size": "image_size_2"}
    assert proto_names(["has_mask", "mask"]) == {"has_mask": "has_mask", "mask": "mask_2"}
    assert proto_names(["boxes"], {"old": "boxes_size"}) == {"boxes": "boxes_2"}


@pytest.mark.parametrize(
    ("key", "word"),
    [("iris", "iris"), ("class", "class_"), ("and_eq", "and_eq_"), ("std", "std_"), ("class_a", "class_a")],
)
def test_a_package_has_no_word_that_a_language_reserves(key: str, word: str) -> None:
    assert package_word(key) == word


@pytest.mark.parametrize("name", keyword.kwlist)
def test_python_can_import_every_package(name: str) -> None:
    if name.islower():
        assert package_word(name) == f"{name}_"


tensor_names = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(["x_1", "x1", "X_1", "x.1", "x:1", "x_1_2", "x1_2", "class", "class_value", "0", "tensor_0"]),
        st.sampled_from(["x", "x_size", "has_x", "clear_x", "x_size_2", "has_has_x", "class_size", "X_Size"]),
    ),
    unique=True,
    max_size=12,
)


@given(tensor_names)
def test_identifiers_are_legal_and_distinct_to_every_compiler(tensors: list[str]) -> None:
    names = proto_names(tensors)
    assert list(names) == tensors
    assert all(LEGAL.fullmatch(name) and not keyword.iskeyword(name) for name in names.values())
    known = {name.replace("_", "").lower() for name in names.values()}
    assert len(known) == len(tensors)
    for name in known:
        assert not {f"{name}size", f"has{name}", f"clear{name}"} & known


@given(tensor_names, tensor_names)
def test_later_tensors_change_no_locked_name(before: list[str], after: list[str]) -> None:
    locked = proto_names(before)
    names = proto_names(after, locked)
    assert all(names[tensor] == locked[tensor] for tensor in after if tensor in locked)
    fresh = {names[tensor] for tensor in after if tensor not in locked}
    assert fresh.isdisjoint(locked.values())
