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


class EdgeTable:
    """For one set of edges and a list of margins: which edge is "this edge, later by the margin".

    The nearest edge, in the logarithm, but at least the next one. Past the last edge there is none: -1.
    """

    def __init__(self, edges_us: tuple[int, ...], margins: Sequence[float]):
        self.edges_us = edges_us
        log_edges = np.log(np.maximum(np.array(edges_us, dtype=np.float64), 1e-3))
        count = len(edges_us)
        self.shifted: IntArray = np.empty((len(margins), count), dtype=np.int64)
        if not count:
            return
        for row, margin in enumerate(margins):
            target = log_edges + np.log1p(margin)
            right = np.searchsorted(log_edges, target)
            left = np.maximum(right - 1, 0)
            inside = np.minimum(right, count - 1)
            nearest = np.where(target - log_edges[left] < log_edges[inside] - target, left, inside)
            beyond = (right >= count) & (target - log_edges[-1] > 1e-2)
            self.shifted[row] = np.where(beyond, -1, np.maximum(nearest, np.arange(count) + 1))
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
