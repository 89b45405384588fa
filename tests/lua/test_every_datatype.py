"""Every datatype and shape, both protocols, both directions: bit for bit what numpy, protobuf and json say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Refused, Scripts
from tests.lua.vectors import FLOATS, Model

SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def check_request(made: Model, arrays: Sequence[Any], body: bytes) -> None:
    request = vectors.infer_request(body)
    rows = vectors.rows_of(made, arrays) or 1
    assert (request.model_name, request.model_version, request.id) == ("digits.3", "1", str(rows))
    assert [o.name for o in request.outputs] == [f.name for f in made.contract.outputs]
    given = [(field, array) for field, array in zip(made.contract.inputs, arrays, strict=True) if array is not None]
    for (field, array), described, content in zip(given, request.inputs, request.raw_input_contents, strict=True):
        assert (described.name, described.datatype) == (field.name, field.datatype.value)
        assert tuple(described.shape) == wire_shape(field.tensor.shape, array)
        assert vectors.one_nan(field.datatype, content) == vectors.raw(field.datatype, array)


def wire_shape(shape: tuple[int, ...], array: Any) -> tuple[int, ...]:
    """Triton knows no tensor without a dimension of its own: a scalar is one element."""
    return np.shape(array) if shape else (*np.shape(array), 1)


@SETTINGS
@given(case=vectors.cases(text=True), data=st.data())
def test_json_requests_become_the_tensors_numpy_makes(scripts: Scripts, case: Any, data: st.DataObject) -> None:
    made, arrays = case
    indent = data.draw(st.sampled_from([None, 1]))
    ascii_only = data.draw(st.booleans())
    flat = data.draw(st.booleans())
    text = json.dumps(vectors.json_request(made, arrays, flat=flat), indent=indent, ensure_ascii=ascii_only)
    check_request(made, arrays, scripts.decode_json(scripts.plan(made.context()), text.encode()))


@SETTINGS
@given(case=vectors.cases(text=True))
def test_typed_requests_become_the_tensors_numpy_makes(scripts: Scripts, case: Any) -> None:
    made, arrays = case
    body = vectors.framed(vectors.typed_request(made, arrays).SerializeToString())
    check_request(made, arrays, scripts.decode_typed(scripts.plan(made.context()), body))


@SETTINGS
@given(case=vectors.cases(text=False), identified=st.booleans(), one_element=st.booleans(), in_contents=st.booleans())
def test_answers_become_the_json_they_mean(
    scripts: Scripts, case: Any, identified: bool, one_element: bool, in_contents: bool
) -> None:
    made, arrays = case[0], vectors.filled(*case)
    rows = vectors.rows_of(made, arrays) or 1
    in_contents = in_contents and vectors.has_contents(made)
    response = vectors.answer(made, arrays, identity=str(rows) if identified else None, in_contents=in_contents)
    for field, output in zip(made.contract.outputs, response.outputs, strict=True):
        if field.tensor.shape == () and one_element:
            output.shape.append(1)
    text, _ = scripts.encode_json(scripts.plan(made.context()), vectors.framed(response.SerializeToString()))
    document = vectors.parse_strict(text)
    for r in range(rows):
        row = document["predictions"][r] if made.contract.batching else document
        assert list(row) == [f.name for f in made.contract.outputs]
        for field, array in zip(made.contract.outputs, arrays, strict=True):
            assert vectors.same_values(field.datatype, array[r] if made.contract.batching else array, row[field.name])


@SETTINGS
@given(case=vectors.cases(text=True), in_contents=st.booleans())
def test_answers_become_the_typed_message_protobuf_makes(scripts: Scripts, case: Any, in_contents: bool) -> None:
    made, arrays = case[0], vectors.filled(*case)
    response = vectors.answer(made, arrays, in_contents=in_contents and vectors.has_contents(made))
    body, _ = scripts.encode_typed(scripts.plan(made.context()), vectors.framed(response.SerializeToString()))
    parsed: Any = made.classes.response.FromString(vectors.unframed(body))
    expected: Any = made.classes.response()
    if made.contract.batching:
        for r in range(len(arrays[0])):
            vectors.fill(expected.predictions.add(), made.contract.outputs, [a[r] for a in arrays])
    else:
        vectors.fill(expected, made.contract.outputs, arrays)
    assert parsed == expected or str(parsed) == str(expected), "equal, or equal but for NaN"


@pytest.mark.parametrize("form", ['{"b64":"AP-A"}', '{"b64": "AP+A" }', '"AP+A"', '"AP-A"'])
def test_single_bytes_may_be_base64(scripts: Scripts, form: str) -> None:
    for datatype in (Datatype.UINT8, Datatype.INT8):
        made = vectors.model(
            [TensorSpec("x", datatype, (3,)), TensorSpec("n", datatype, ())], [TensorSpec("y", datatype, ())]
        )
        request = vectors.infer_request(
            scripts.decode_json(scripts.plan(made.context()), f'{{"x":{form},"n":"/w=="}}'.encode())
        )
        assert list(request.raw_input_contents) == [b"\0\xff\x80", b"\xff"]


FLOAT_TEXT = st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@settings(max_examples=1500, deadline=None)
@given(text=FLOAT_TEXT, datatype=st.sampled_from(FLOATS))
def test_decimal_text_is_rounded_as_python_and_numpy_round_it(scripts: Scripts, text: str, datatype: Datatype) -> None:
    made = ONE_OF[datatype]
    body = f'{{"x":[{text}]}}'.encode()
    with np.errstate(over="ignore"):
        expected = np.array([float(text)]).astype(vectors.DTYPES[datatype])
    if np.isfinite(expected[0]):
        assert (
            vectors.infer_request(scripts.decode_json(PLANS.of(scripts, datatype), body)).raw_input_contents[0]
            == expected.tobytes()
        )
    else:
        with pytest.raises(Refused, match="OUT_OF_RANGE"):
            scripts.decode_json(scripts.plan(made.context()), body)


ONE_OF = {d: vectors.model([TensorSpec("x", d, (DYNAMIC,))], [TensorSpec("x", d, (DYNAMIC,))]) for d in Datatype}


class Plans:
    """Compiled once per datatype: compiling is slower than what is tested."""

    def __init__(self) -> None:
        self._plans: dict[Datatype, Any] = {}

    def of(self, scripts: Scripts, datatype: Datatype) -> Any:
        return self._plans.setdefault(datatype, scripts.plan(ONE_OF[datatype].context()))


PLANS = Plans()


@pytest.mark.parametrize("datatype", [Datatype.FP16, Datatype.BF16])
def test_all_65536_half_floats_survive_every_way(scripts: Scripts, datatype: Datatype) -> None:
    every = np.arange(65536, dtype=np.uint16).view(vectors.DTYPES[datatype])
    made = ONE_OF[datatype]
    plan = PLANS.of(scripts, datatype)
    typed = vectors.framed(vectors.typed_request(made, [every]).SerializeToString())
    content = vectors.infer_request(scripts.decode_typed(plan, typed)).raw_input_contents[0]
    assert vectors.one_nan(datatype, content) == vectors.raw(datatype, every)
    text = json.dumps(vectors.json_request(made, [every])).encode()
    assert vectors.infer_request(scripts.decode_json(plan, text)).raw_input_contents[0] == vectors.raw(datatype, every)
    out, _ = scripts.encode_json(plan, vectors.framed(vectors.answer(made, [every]).SerializeToString()))
    assert vectors.same_values(datatype, every, vectors.parse_strict(out)["x"])


@settings(max_examples=300, deadline=None)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_float32_is_printed_as_short_as_numpy_prints_it(scripts: Scripts, bits: list[int]) -> None:
    array = np.array(bits, dtype=np.uint32).view(np.float32)
    plan = PLANS.of(scripts, Datatype.FP32)
    made = ONE_OF[Datatype.FP32]
    out, _ = scripts.encode_json(plan, vectors.framed(vectors.answer(made, [array]).SerializeToString()))
    assert vectors.same_values(Datatype.FP32, array, vectors.parse_strict(out)["x"])
    printed = out.decode()[len('{"x":[') : -2].split(",")
    for value, text in zip(array, printed, strict=True):
        # Six digits are never dropped below, and powers of two have a narrower side: one digit more at times.
        if np.isfinite(value):
            mantissa = text.lower().split("e")[0].replace("-", "").replace(".", "").strip("0")
            ideal = (
                np.format_float_scientific(value, unique=True, trim="-").split("e")[0].replace("-", "").replace(".", "")
            )
            assert len(mantissa) <= max(6, len(ideal.strip("0")) + 1)
