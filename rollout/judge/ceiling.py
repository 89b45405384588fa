"""An owner's absolute ceiling: a share of bad requests that no version may exceed, whatever the other arm does.

Over the ceiling means shown to be over it (a sequential test, so that one unlucky request in ten is no violation).
The canary over it and stable not: roll back. Both: hold, since the canary is not the cause.
"""

from __future__ import annotations

import numpy as np

from rollout.judge.evalues import BoolArray, FloatArray, IntArray, rate_against
from rollout.judge.process import EProcess, log_uniform
from rollout.judge.rows import Rows

_RATIOS: FloatArray = np.array([1.5, 2.0, 4.0, 10.0, 40.0])
_STABLE_DECAY_PER_S = 0.97
"""Stable's share against the ceiling is that of the last half minute or so."""
_MIN_STABLE = 10.0


class Ceiling(Rows):
    """Evidence that the canary's share of bad requests is above `limit`."""

    arrays = ("recent",)
    parts = ("canary",)

    def __init__(self, limit: float, runs: int):
        self._limit = limit
        self._alternatives: FloatArray = np.minimum(limit * _RATIOS, (1.0 + limit) / 2.0)
        self.canary = EProcess(runs, (len(_RATIOS),), log_prior=log_uniform(len(_RATIOS)))
        self.recent: FloatArray = np.zeros((runs, 2))

    def restart(self, rows: IntArray) -> None:
        self.canary.restart(rows)

    def observe(
        self,
        bad_canary: FloatArray,
        n_canary: FloatArray,
        bad_stable: FloatArray,
        n_stable: FloatArray,
        seconds: FloatArray,
    ) -> None:
        rows = np.arange(len(n_canary))
        self.canary.multiply(
            rows, rate_against(bad_canary[:, None], n_canary[:, None], self._alternatives, self._limit)
        )
        self.recent *= (_STABLE_DECAY_PER_S**seconds)[:, None]
        self.recent += np.stack([bad_stable, n_stable], axis=1)

    def canary_over(self, log_needed: float) -> BoolArray:
        return self.canary.log_e() >= log_needed

    @property
    def stable_over(self) -> BoolArray:
        bad, n = self.recent.T
        result: BoolArray = (n >= _MIN_STABLE) & (bad > self._limit * n)
        return result
