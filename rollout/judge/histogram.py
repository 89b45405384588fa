"""Stable's latency distribution as it was lately, and which bucket edges stand for its quantiles and for margins.

Latency arrives as counts per bucket, so every threshold is an edge: exact counts, no interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollout.judge.evalues import FloatArray, IntArray

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


class StableHistogram:
    """Decayed bucket counts of stable's successful responses."""

    def __init__(self, edges: int):
        self.counts: FloatArray = np.zeros(edges + 1)
        self.total = 0.0

    def add(self, counts: FloatArray, seconds: float) -> None:
        self.counts = self.counts * DECAY_PER_S**seconds + counts
        self.total = float(self.counts.sum())

    def exceedance(self) -> FloatArray:
        """Share above each edge, smoothed so that it is strictly between 0 and 1."""
        above = np.maximum(self.total - np.cumsum(self.counts)[:-1], 0.0)
        share: FloatArray = (above + 0.5) / (self.total + 1.0)
        return share

    def to_json(self) -> dict[str, Any]:
        return {"counts": self.counts.tolist(), "total": self.total}

    def load(self, value: Mapping[str, Any]) -> None:
        self.counts = np.array(value["counts"], dtype=np.float64)
        self.total = float(value["total"])


def nearest_edges(exceedance: FloatArray, log_tail: FloatArray) -> IntArray:
    """Index of the edge whose exceedance is nearest, as a ratio, to each wanted tail share (given in logs)."""
    falling = -np.log(exceedance)
    right = np.minimum(np.searchsorted(falling, -log_tail), len(falling) - 1)
    left = np.maximum(right - 1, 0)
    nearer_left = np.abs(falling[left] + log_tail) < np.abs(falling[right] + log_tail)
    result: IntArray = np.where(nearer_left, left, right)
    return result


def counts_above(counts: FloatArray) -> FloatArray:
    """Number above each edge."""
    above: FloatArray = counts.sum() - np.cumsum(counts)[:-1]
    return above
