"""Doubles as text: each reads back as the same double, and none takes more digits than the shortest."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.signature import Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Scripts

MADE = vectors.model([TensorSpec("x", Datatype.FP32, ())], [TensorSpec("y", Datatype.FP64, (-1,))])

finite = st.floats(allow_nan=False, allow_infinity=False)
decimal = st.builds(lambda whole, places: whole / 10**places, st.integers(-(10**17), 10**17), st.integers(0, 22))
dyadic = st.builds(math.ldexp, st.integers(-(2**53), 2**53), st.integers(-80, 40))
at_a_power = st.builds(
    lambda value, towards: float(np.nextafter(value, towards)),
    st.one_of(st.integers(-1000, 1000).map(lambda e: 2.0**e), st.integers(-300, 300).map(lambda e: float(f"1e{e}"))),
    st.sampled_from([0.0, math.inf]),
)


def printed(scripts: Scripts, values: Sequence[float]) -> list[str]:
    answer = vectors.answer(MADE, [np.array(values, np.float64)])
    body, _ = scripts.encode_json(scripts.plan(MADE.context()), vectors.framed(answer.SerializeToString()))
    assert json.loads(body)["y"] == list(values)
    return body.decode().removeprefix('{"y":[').removesuffix("]}").split(",")


def digits(text: str) -> str:
    """The significant ones."""
    return text.lstrip("-").partition("e")[0].replace(".", "").strip("0")


@settings(max_examples=300, deadline=None)
@given(values=st.lists(st.one_of(finite, decimal, dyadic, at_a_power), min_size=1, max_size=40))
def test_every_double_reads_back_from_its_shortest_text(scripts: Scripts, values: list[float]) -> None:
    for text, value in zip(printed(scripts, values), values, strict=True):
        assert float(text) == value
        assert math.copysign(1, float(text)) == math.copysign(1, value)
        # The C library prints the others: of a power of two the text of 16 digits that does may not be the nearest, and
        # doubles near 0 have fewer than its 15 digits.
        if 1e-260 < abs(value) < 1e260 and abs(math.frexp(value)[0]) != 0.5:
            assert len(digits(text)) <= len(digits(repr(value))), "Python prints the shortest"


@pytest.mark.parametrize("exponent", range(-308, 308, 7))
def test_doubles_of_every_magnitude_read_back(scripts: Scripts, exponent: int) -> None:
    values = (np.random.default_rng(exponent + 400).uniform(1, 10, 200) * 10.0**exponent).tolist()
    assert [float(text) for text in printed(scripts, values)] == values


def test_usual_doubles_look_as_people_write_them(scripts: Scripts) -> None:
    looks = {
        0.1: "0.1",
        -0.5: "-0.5",
        1.0: "1.0",
        -120.0: "-120.0",
        123456.789: "123456.789",
        0.0001: "0.0001",
        0.00001: "1e-05",
        1e15: "1e+15",
        2.5e-300: "2.5e-300",
        1 / 3: "0.3333333333333333",
        0.1 + 0.2: "0.30000000000000004",
        999999999999999.9: "999999999999999.9",
        -0.0: "-0.0",
    }
    assert printed(scripts, list(looks)) == list(looks.values())
