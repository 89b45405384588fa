"""A signature becomes a contract: types, numbers and names, the lock, and what cannot be typed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.derive import PROTO_TYPES, Untypable, derive
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
        ({"x": (FP32, (DYNAMIC, DYNAMIC, 3))}, {"y": (FP32, ())}, r"'x': shape \[-1, -1, 3\] has 2 dynamic dimensions"),
        ({"x": (FP32, ())}, {"y": (FP32, (DYNAMIC, DYNAMIC))}, r"'y': shape \[-1, -1\] has 2 dynamic dimensions"),
        ({"x": (FP32, (DYNAMIC, 0))}, {"y": (FP32, ())}, "'x': .*has no values"),
        ({"x": (FP32, (-2,))}, {"y": (FP32, ())}, "'x': .*neither a size nor -1"),
        ({"": (FP32, (1,))}, {"y": (FP32, ())}, "has no name"),
        ({"\ud800": (FP32, (1,))}, {"y": (FP32, ())}, "not valid Unicode"),
        ({}, {"y": (FP32, ())}, "the signature has no inputs"),
        ({"x": (FP32, ())}, {}, "the signature has no outputs"),
    ],
)
def test_what_cannot_be_typed_says_which_tensor_and_why(
    inputs: dict[str, tuple[Datatype, tuple[int, ...]]],
    outputs: dict[str, tuple[Datatype, tuple[int, ...]]],
    reason: str,
) -> None:
    with pytest.raises(Untypable, match=reason):
        derive("odd", signature(inputs, outputs))


def test_every_obstacle_is_listed_at_once() -> None:
    twice = TensorSpec("x", FP32, (DYNAMIC, DYNAMIC))
    with pytest.raises(Untypable) as refused:
        derive("odd", Signature((twice, twice), ()))
    assert [obstacle.tensor for obstacle in refused.value.obstacles] == ["x", "x", "x", ""]
