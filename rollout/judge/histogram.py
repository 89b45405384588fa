"""Stable's latency distribution as it was lately, and which bucket edges stand for its quantiles and for margins.

Latency arrives as counts per bucket, so every threshold is an edge: exact counts, no interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollout.judge.evalues import FloatArray, IntArray
from rollout.judge.rows import Rows

DECAY_PER_S = 0.97**0.1
"""About five and a half minutes: long enough for a tail, short enough to follow the load."""


SLACK = 0.15
"""An edge counts as reaching a tolerance when it is this part of it short: edges are rounded to whole microseconds."""


class EdgeTable:
    """For one set of edges: which edge is "this edge, later by the margin", per margin (rows); past the last edge: -1.

    Tolerances go to the next edge that reaches them: buckets are of uneven width, and a tolerance rounded down from
    5 % to 1 % would roll back healthy versions. What is to be proven goes to the nearest edge, in the logarithm, above
    the first one: rounded up it would be proven too cheaply, rounded down at many times the requests.
    """

    def __init__(self, edges_us: tuple[int, ...], *, tolerances: Sequence[float], proofs: Sequence[float]):
        self.edges_us = edges_us
        count = len(edges_us)
        self.shifted: IntArray = np.full((len(tolerances) + len(proofs), count), -1, dtype=np.int64)
        if not count:
            return
        log_edges = np.log(np.array(edges_us, dtype=np.float64))
        following = np.arange(count) + 1
        for row, margin in enumerate(tolerances):
            self.shifted[row] = np.searchsorted(log_edges, log_edges + np.log1p((1.0 - SLACK) * margin))
        for row, margin in enumerate(proofs, start=len(tolerances)):
            target = log_edges + np.log1p(margin)
            right = np.searchsorted(log_edges, target)
            left, inside = right - 1, np.minimum(right, count - 1)
            nearest = np.where(target - log_edges[left] < log_edges[inside] - target, left, inside)
            self.shifted[row] = np.where(right < count, np.maximum(nearest, following), count)
        self.shifted[self.shifted >= count] = -1


class StableHistogram(Rows):
    """Decayed bucket counts of stable's successful responses, per rollout."""

    arrays = ("counts",)

    def __init__(self, runs: int, edges: int):
        self.counts: FloatArray = np.zeros((runs, edges + 1))

    def add(self, rows: IntArray, counts: FloatArray, seconds: FloatArray) -> None:
        self.counts[rows] = self.counts[rows] * (DECAY_PER_S**seconds)[:, None] + counts

    @property
    def total(self) -> FloatArray:
        """Decayed responses per rollout."""
        result: FloatArray = self.counts.sum(axis=1)
        return result

    def exceedance(self, rows: IntArray) -> FloatArray:
        """Share above each edge (columns), smoothed so that it is strictly between 0 and 1."""
        below = np.cumsum(self.counts[rows], axis=1)
        total = below[:, -1:]
        share: FloatArray = (np.maximum(total - below[:, :-1], 0.0) + 0.5) / (total + 1.0)
        return share


def nearest_edges(exceedance: FloatArray, log_tail: FloatArray) -> IntArray:
    """Per rollout and wanted tail share (given in logs): index of the edge whose exceedance is nearest, as a ratio."""
    falling = np.log(exceedance)
    right = (falling[:, None, :] > log_tail[:, None]).sum(axis=2)
    right = np.minimum(right, falling.shape[1] - 1)
    left = np.maximum(right - 1, 0)
    distance_left = np.abs(np.take_along_axis(falling, left, axis=1) - log_tail)
    distance_right = np.abs(np.take_along_axis(falling, right, axis=1) - log_tail)
    result: IntArray = np.where(distance_left < distance_right, left, right)
    return result


def counts_above(counts: FloatArray, edges: IntArray) -> FloatArray:
    """Per rollout (rows), the number above each of its `edges` (columns)."""
    below = np.cumsum(counts, axis=1)
    above: FloatArray = below[:, -1:] - np.take_along_axis(below, edges, axis=1)
    return above
