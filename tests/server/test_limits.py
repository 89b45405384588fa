"""A model's body limit is what its largest batch needs as JSON text, between a floor and the operator's ceiling."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.model import Contract
from gateway.limits import CEILING_FLAG, FLOOR_BYTES, LimitPolicy, need_bytes

POLICY = LimitPolicy(ceiling_bytes=64 * 1024 * 1024)


def contract(datatype: Datatype, shape: tuple[int, ...], rows: int) -> Contract:
    tensors = (TensorSpec("x", datatype, shape),)
    return derive("model", Signature(tensors, (TensorSpec("y", Datatype.FP32, (1,)),), rows))


EXTREMES = {
    Datatype.BOOL: False,
    Datatype.UINT8: 255,
    Datatype.INT8: -128,
    Datatype.UINT16: 65_535,
    Datatype.INT16: -32_768,
    Datatype.UINT32: 2**32 - 1,
    Datatype.INT32: -(2**31),
    Datatype.UINT64: 2**64 - 1,
    Datatype.INT64: -(2**63),
    Datatype.FP16: float(-np.finfo(np.float16).tiny),
    Datatype.FP32: float(-np.finfo(np.float32).tiny),
    Datatype.FP64: -2.2250738585072014e-308,
}


@given(st.sampled_from(sorted(EXTREMES)), st.lists(st.integers(1, 4), max_size=3).map(tuple), st.integers(0, 5))
def test_the_longest_batch_fits_in_every_text_form(datatype: Datatype, shape: tuple[int, ...], rows: int) -> None:
    """As typed JSON and as Open Inference JSON, with the blanks that Python's encoder writes."""
    values = np.full(shape, None, object)
    values[...] = EXTREMES[datatype]
    nested = values.tolist()
    need = need_bytes(contract(datatype, shape, rows))
    assert need is not None
    typed = {"instances": [{"x": nested}] * rows} if rows else {"x": nested}
    open_inference = {
        "inputs": [{"name": "x", "shape": [rows, *shape], "datatype": datatype, "data": [nested] * max(rows, 1)}]
    }
    assert max(len(json.dumps(typed)), len(json.dumps(open_inference))) <= need


def test_a_small_model_gets_the_floor() -> None:
    limits = POLICY.of([contract(Datatype.FP32, (4,), 64)])
    assert limits.request_bytes == FLOOR_BYTES


def test_a_large_model_gets_what_its_batch_needs() -> None:
    limits = POLICY.of([contract(Datatype.FP32, (3, 224, 224), 4)])
    assert 4 * 150_528 * 26 < limits.request_bytes < 4 * 150_528 * 40
    assert "largest batch" in limits.request_bytes_from


@pytest.mark.parametrize(("datatype", "shape"), [(Datatype.FP32, (DYNAMIC,)), (Datatype.BYTES, (1,))])
def test_a_size_that_nothing_bounds_gets_the_ceiling(datatype: Datatype, shape: tuple[int, ...]) -> None:
    limits = POLICY.of([contract(datatype, shape, 8)])
    assert limits.request_bytes == POLICY.ceiling_bytes
    assert limits.request_bytes_from == CEILING_FLAG


def test_nothing_is_above_the_ceiling() -> None:
    assert POLICY.of([contract(Datatype.FP32, (3, 224, 224), 64)]).request_bytes == POLICY.ceiling_bytes
    tight = LimitPolicy(ceiling_bytes=4096)
    assert tight.of([contract(Datatype.FP32, (4,), 64)]).request_bytes == 4096


def test_versions_that_share_a_line_share_the_larger_limit() -> None:
    small, large = contract(Datatype.FP32, (4,), 64), contract(Datatype.FP32, (3, 224, 224), 4)
    assert POLICY.of([small, large]) == POLICY.of([large])
