"""Latencies in buckets are at most 1.6 % above the exact ones, and merging loses nothing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from loadtest.histogram import Histogram, bucket_of, merged, upper_edge_us

VALUES = st.integers(min_value=0, max_value=10**10)


@given(VALUES)
def test_a_value_lies_in_its_bucket(value: int) -> None:
    bucket = bucket_of(value)
    assert value <= upper_edge_us(bucket) <= value * (1 + 1 / 64)
    assert bucket == 0 or upper_edge_us(bucket - 1) < value


@given(st.lists(VALUES, min_size=1, max_size=300), st.floats(min_value=0.0, max_value=1.0))
def test_quantiles_are_the_nearest_rank_within_a_bucket(values: list[int], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    quantile = histogram.quantile_us(q)
    assert quantile is not None
    assert exact <= quantile <= exact * (1 + 1 / 64)


@given(st.lists(st.lists(VALUES, max_size=50), max_size=5))
def test_merging_is_recording_in_one(parts: list[list[int]]) -> None:
    def recorded(values: list[int]) -> Histogram:
        histogram = Histogram()
        for value in values:
            histogram.record(value)
        return histogram

    whole = recorded([value for part in parts for value in part])
    assert merged(map(recorded, parts)).pairs() == whole.pairs()
    assert Histogram(whole.pairs()).pairs() == whole.pairs()


def test_nothing_recorded_has_no_quantile() -> None:
    assert Histogram().quantile_us(0.5) is None
    assert Histogram().share_above(1.0) == 0.0


def test_the_share_above_a_limit_counts_whole_buckets() -> None:
    histogram = Histogram()
    for value in (10, 20, 5_000, 9_000):
        histogram.record(value)
    assert histogram.share_above(1_000) == 0.5
