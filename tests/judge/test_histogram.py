"""Thresholds are bucket edges: which edge stands for a quantile, and which for a margin above it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.histogram import SLACK, EdgeTable, StableHistogram, counts_above, nearest_edges
from tests.judge.traffic import EDGES_US

EDGES = st.lists(st.integers(1, 10**7), min_size=2, max_size=60, unique=True).map(lambda edges: tuple(sorted(edges)))
MARGINS = st.floats(0.02, 4.0)


@given(EDGES, MARGINS)
def test_a_tolerance_is_never_rounded_down_by_more_than_the_slack(edges: tuple[int, ...], margin: float) -> None:
    shifted = EdgeTable(edges, tolerances=[margin], proofs=[]).shifted[0]
    for index, to in enumerate(shifted):
        if to >= 0:
            assert edges[to] / edges[index] >= 1 + (1 - SLACK) * margin - 1e-9
            assert to > index
        else:
            assert edges[-1] / edges[index] < 1 + (1 - SLACK) * margin + 1e-9


@given(EDGES, MARGINS)
def test_what_is_to_be_proven_goes_to_the_nearest_edge_above(edges: tuple[int, ...], margin: float) -> None:
    shifted = EdgeTable(edges, tolerances=[], proofs=[margin]).shifted[0]
    for index, to in enumerate(shifted):
        if to >= 0:
            distance = [abs(np.log(edge / edges[index]) - np.log1p(margin)) for edge in edges[index + 1 :]]
            assert abs(np.log(edges[to] / edges[index]) - np.log1p(margin)) == pytest.approx(min(distance), abs=1e-9)


def test_on_a_five_percent_grid_margins_are_exact() -> None:
    shifted = EdgeTable(EDGES_US, tolerances=[0.05, 0.16], proofs=[0.10, 0.22, 0.48]).shifted
    assert [row[40] - 40 for row in shifted] == [1, 3, 2, 4, 8]


def test_quantiles_of_the_histogram_are_found_at_their_edges() -> None:
    sample = np.random.default_rng(1).lognormal(np.log(20_000), 0.5, 100_000)
    histogram, first = StableHistogram(1, len(EDGES_US)), np.zeros(1, dtype=np.int64)
    counts = np.bincount(np.searchsorted(EDGES_US, sample), minlength=len(EDGES_US) + 1).astype(float)
    histogram.add(first, counts[None], np.ones(1))
    edges = nearest_edges(histogram.exceedance(first), np.log(1 - np.array([0.5, 0.9, 0.99])))[0]
    for edge, share in zip(edges, (0.5, 0.9, 0.99), strict=True):
        assert EDGES_US[edge] == pytest.approx(np.quantile(sample, share), rel=0.05)


def test_counts_above_an_edge_leave_out_its_own_bucket() -> None:
    assert counts_above(np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([[0, 1, 2]])).tolist() == [[6.0, 3.0, 1.0]]
