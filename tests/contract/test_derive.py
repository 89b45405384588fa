"""A signature becomes a contract: types, numbers and names, the lock, and what cannot be typed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.compare import Outcome, compare
from gateway.contract.derive import PROTO_TYPES, derive
from gateway.contract.growth import grown
from gateway.contract.model import Contract
from gateway.contract.names import BadModelName
from tests.contract.cases import CONTRACTS, SIGNATURES, signature

FP32, INT64 = Datatype.FP32, Datatype.INT64


def test_a_batching_model() -> None:
    contract = derive("digits-v2", SIGNATURES["digits-v2"])
    assert contract.full_service == "penstock.models.digits_v2.v1.DigitsV2"
    assert contract.predict_http_path == "/v1/models/digits-v2:predict"
    assert (contract.batching, contract.max_rows) == (True, 128)
    assert [(f.name, f.number, f.proto_type, f.repeated) for f in contract.outputs] == [
        ("label", 1, "sfixed64", False),
        ("probabilities", 2, "float", True),
    ]


def test_a_model_that_does_not_batch_takes_one_row() -> None:
    contract = derive("matrix", SIGNATURES["matrix"])
    assert (contract.batching, contract.max_rows) == (False, 1)


def test_every_datatype_has_a_proto_type() -> None:
    assert set(PROTO_TYPES) == set(Datatype)


def test_bytes_fields_carry_a_whole_tensor_and_are_not_repeated() -> None:
    (pixels,) = derive("image", SIGNATURES["image"]).inputs
    assert (pixels.proto_type, pixels.repeated) == ("bytes", False)


@pytest.mark.parametrize("model", CONTRACTS)
def test_a_contract_survives_json(model: str) -> None:
    contract = CONTRACTS[model]
    assert Contract.from_json(json.loads(json.dumps(contract.to_json()))) == contract


@pytest.mark.parametrize("model", CONTRACTS)
def test_the_same_signature_gives_the_locked_contract_again(model: str) -> None:
    assert derive(model, SIGNATURES[model], CONTRACTS[model]) == CONTRACTS[model]


def test_the_order_of_tensors_does_not_change_a_locked_contract() -> None:
    found = SIGNATURES["odd-names"]
    turned = replace(found, inputs=found.inputs[::-1], outputs=found.outputs[::-1])
    assert derive("odd-names", turned, CONTRACTS["odd-names"]) == CONTRACTS["odd-names"]


def test_new_tensors_come_after_locked_ones_and_numbers_are_not_used_again() -> None:
    locked = derive("m", signature({"x": (FP32, ())}, {"a": (FP32, ()), "b": (FP32, ())}))
    later = derive("m", signature({"x": (FP32, ())}, {"new": (FP32, ()), "b": (FP32, ()), "a": (FP32, ())}), locked)
    assert [(f.name, f.number) for f in later.outputs] == [("a", 1), ("b", 2), ("new", 3)]
    without_a = derive("m", signature({"x": (FP32, ())}, {"new": (FP32, ()), "b": (FP32, ())}), locked)
    assert [(f.name, f.number) for f in without_a.outputs] == [("b", 2), ("new", 3)]


def test_a_locked_major_is_kept() -> None:
    found = SIGNATURES["iris"]
    second = derive("iris", found, major=2)
    assert second.package == "penstock.models.iris.v2"
    assert derive("iris", found, second) == second


def test_field_numbers_leave_protobufs_own_range_alone() -> None:
    many = Signature(
        tuple(TensorSpec(f"x{i}", FP32, ()) for i in range(19_100)),
        (TensorSpec("y", FP32, ()),),
    )
    numbers = {field.number for field in derive("wide", many).inputs}
    assert len(numbers) == 19_100
    assert numbers.isdisjoint(range(19_000, 20_000))


def test_a_bad_model_name_is_refused() -> None:
    with pytest.raises(BadModelName):
        derive("Iris", SIGNATURES["iris"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ({"x": (FP32, (-2,))}, {"y": (FP32, ())}, "input 'x': shape [-2] has a dimension that is neither"),
        ({"": (FP32, (1,))}, {"y": (FP32, ())}, "input '': a tensor of shape [1] has no name"),
        ({"x": (FP32, ())}, {"\ud800": (FP32, (1,))}, "output '\\ud800': its name is not valid Unicode"),
        ({}, {"y": (FP32, ())}, "the model has no inputs"),
        ({"x": (FP32, ())}, {}, "the model has no outputs"),
    ],
)
def test_what_cannot_be_typed_says_which_tensor_and_why(
    inputs: dict[str, tuple[Datatype, tuple[int, ...]]],
    outputs: dict[str, tuple[Datatype, tuple[int, ...]]],
    reason: str,
) -> None:
    contract = derive("odd", signature(inputs, outputs))
    assert not contract.typed
    (obstacle,) = contract.obstacles
    assert obstacle.startswith(reason)
    assert (contract.inputs, contract.outputs) == ((), ())
    assert [t.name for t in contract.takes] == list(inputs)
    assert [t.name for t in contract.gives] == list(outputs)


def test_every_obstacle_is_listed_at_once() -> None:
    twice = TensorSpec("x", FP32, (-2, DYNAMIC))
    contract = derive("odd", Signature((twice, twice), (), obstacles=("it keeps state",)))
    assert [obstacle.split(":")[0] for obstacle in contract.obstacles] == [
        "it keeps state",
        "input 'x'",
        "input 'x'",
        "input 'x'",
        "the model has no outputs",
    ]


def test_a_shape_that_the_number_of_values_does_not_tell_has_a_field_of_its_own() -> None:
    contract = CONTRACTS["two-dynamic"]
    shapes = {f.name: f.shape_field and (f.shape_field.name, f.shape_field.number) for f in contract.inputs}
    # JSON knows the tensor x_shape by its own name, so the shape of x must have another.
    assert shapes == {"pixels": ("pixels_shape", 2), "x": ("x_shape_2", 4), "x_shape": None}
    assert [(f.name, f.number) for f in contract.inputs] == [("pixels", 1), ("x", 3), ("x_shape", 5)]
    assert [bool(f.shape_field) for f in contract.outputs] == [True, True, False]


def test_the_shapes_name_and_number_are_locked() -> None:
    locked = derive("m", signature({"x": (FP32, ())}, {"y": (FP32, (DYNAMIC, DYNAMIC))}))
    narrower = signature({"x": (FP32, ())}, {"more": (FP32, (DYNAMIC, DYNAMIC)), "y": (FP32, (DYNAMIC, 3))})
    later = derive("m", narrower, locked)
    y, more = later.outputs
    assert y.shape_field == locked.outputs[0].shape_field
    assert (y.numbers, more.numbers) == ((1, 2), (3, 4))


def test_a_new_tensor_cannot_take_the_name_of_a_locked_shape() -> None:
    locked = derive("m", signature({"x": (FP32, ())}, {"y": (FP32, (DYNAMIC, DYNAMIC))}))
    later = derive("m", signature({"x": (FP32, ())}, {"y": (FP32, (DYNAMIC, DYNAMIC)), "y_shape": (FP32, ())}), locked)
    assert later.obstacles == ("output 'y_shape': the API has this name already, for the shape of 'y'",)


def test_the_lock_is_the_wider_promise_of_what_was_served() -> None:
    x, y = TensorSpec("x", FP32, (4,)), TensorSpec("y", FP32, (DYNAMIC,))
    extra = TensorSpec("extra", FP32, (), optional=True)
    first = derive("m", Signature((x,), (y,), 8))
    second = derive(
        "m",
        Signature((replace(x, shape=(DYNAMIC,)), extra), (replace(y, shape=(2,), labels=("a", "b")),), 16),
        first,
    )
    lock = grown(first, second)
    assert lock.max_rows == 16
    assert lock.takes == (replace(x, shape=(DYNAMIC,)), extra)
    # The narrower output is within what was promised.
    assert lock.gives == (replace(y, labels=("a", "b")),)
    # An undo serves the first version again; what callers were given since is still promised.
    assert grown(lock, first) == lock
    assert grown(None, first) == first


def test_the_lock_of_an_untyped_model_gives_way_to_a_typed_api() -> None:
    untyped, typed = derive("m", SIGNATURES["nothing-in"]), derive("m", SIGNATURES["iris"])
    assert grown(untyped, typed) == typed


def _name(spec: TensorSpec) -> str:
    return spec.name


_shapes = st.lists(st.sampled_from([DYNAMIC, 0, 3]), max_size=3).map(tuple)
_names = st.sampled_from(["x", "y", "x_shape", "x-shape", "X", "y_shape"])
_signatures = st.builds(
    Signature,
    inputs=st.lists(
        st.builds(TensorSpec, _names, st.just(FP32), _shapes, st.booleans()), min_size=1, max_size=3, unique_by=_name
    ).map(tuple),
    outputs=st.lists(
        st.builds(TensorSpec, _names, st.just(FP32), _shapes), min_size=1, max_size=3, unique_by=_name
    ).map(tuple),
    max_batch_size=st.sampled_from([0, 4, 8]),
)


@given(st.lists(_signatures, min_size=1, max_size=6))
def test_over_any_history_no_name_or_number_ever_changes_its_meaning(history: list[Signature]) -> None:
    lock: Contract | None = None
    meanings: dict[tuple[str, int], str] = {}
    for version in history:
        if lock is not None and compare(lock, version).outcome is Outcome.BREAKING:
            continue
        contract = derive("m", version, lock)
        lock = grown(lock, contract)
        for served in (contract, lock):
            for side, fields in (("in", served.inputs), ("out", served.outputs)):
                for field in fields:
                    assert meanings.setdefault((side, field.number), field.proto_name) == field.proto_name
                    if field.shape_field:
                        shape = field.shape_field
                        assert meanings.setdefault((side, shape.number), shape.proto_name) == shape.proto_name
        names = [name for f in lock.inputs for name in (f.name, f.shape_field.name if f.shape_field else "") if name]
        assert len(names) == len(set(names))
