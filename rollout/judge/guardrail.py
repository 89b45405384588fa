"""The hard guardrail: gross failure of the canary, seen within seconds at any traffic.

A scan over the last 40 and 120 seconds of the current step, stratified by tick: a canary's expected errors are what
stable's share says *in the same second*, so that a common outage explains itself. It stands outside the alpha budget;
its false alarms are measured by simulation (a common outage across a weight change: none, where pooled windows gave
2.8 %).
"""

from __future__ import annotations

import numpy as np

from rollout.judge.evalues import BoolArray, FloatArray, IntArray
from rollout.judge.rows import Rows

LONG_S, SHORT_S = 120.0, 40.0
_SLOTS = 128
"""Ticks remembered per rollout: the long window at one tick a second. Of shorter ticks only the latest fit."""
_MIN_STABLE = {SHORT_S: 20.0, LONG_S: 5.0}
_PRIOR_REQUESTS = 10.0
_LEAST_RATE = 0.01
_MIN_LOG_LIKELIHOOD = 8.0
_MIN_SHARE = 0.25
_MIN_EXCESS = 3.0
_SILENT_REQUESTS = 10
_LONG_AGO = -1e18


class Scan(Rows):
    """The recent ticks of the current step, in a ring: canary's bad and all requests, stable's bad and all."""

    arrays = ("at", "counts", "slot", "answered")

    def __init__(self, runs: int) -> None:
        self.at: FloatArray = np.full((runs, _SLOTS), _LONG_AGO)
        self.counts: FloatArray = np.zeros((runs, 4, _SLOTS))
        self.slot: IntArray = np.zeros(runs, dtype=np.int64)
        self.answered: FloatArray = np.zeros((runs, 3))
        """In this step: canary's good and bad requests, stable's good."""

    def start_step(self, rows: IntArray) -> None:
        self.at[rows] = _LONG_AGO
        self.answered[rows] = 0.0

    def observe(self, at: FloatArray, tick: FloatArray) -> None:
        """Counts of one tick, (rollouts, 4)."""
        rows = np.arange(len(at))
        self.at[rows, self.slot] = at
        self.counts[rows, :, self.slot] = tick
        self.slot = (self.slot + 1) % _SLOTS
        self.answered += np.stack([tick[:, 1] - tick[:, 0], tick[:, 0], tick[:, 3] - tick[:, 2]], axis=1)

    def shares(self, at: FloatArray) -> FloatArray:
        """Sums over the short window, (rollouts, 4)."""
        recent = self.at > at[:, None] - SHORT_S
        result: FloatArray = np.einsum("rcs,rs->rc", self.counts, recent.astype(np.float64))
        return result

    def alarms(self, at: FloatArray, rows: IntArray) -> BoolArray:
        """Which of these rollouts to roll back at once."""
        good, bad, stable_good = self.answered[rows].T
        silent = (good == 0) & (bad >= _SILENT_REQUESTS) & (stable_good > bad)
        result: BoolArray = silent | self._gross(at, rows, SHORT_S)[0] | self._gross(at, rows, LONG_S)[0]
        return result

    def _gross(self, at: FloatArray, rows: IntArray, window_s: float) -> tuple[BoolArray, FloatArray]:
        """Which of these rollouts fail grossly within the window, and (bad, all, expected bad) of each canary."""
        counts = np.where((self.at[rows] > at[rows, None] - window_s)[:, None, :], self.counts[rows], 0.0)
        bad, n_canary, bad_stable, n_stable = counts.sum(axis=2).T
        rate = np.maximum(bad_stable / np.maximum(n_stable, 1.0), _LEAST_RATE)
        per_tick = (counts[:, 2] + _PRIOR_REQUESTS * rate[:, None]) / (counts[:, 3] + _PRIOR_REQUESTS)
        expected = np.maximum((counts[:, 1] * per_tick).sum(axis=1), 1e-12)
        log_likelihood = bad * np.log(np.maximum(bad, 1.0) / expected) - (bad - expected)
        gross = (
            (bad >= np.maximum(2.0, _MIN_SHARE * n_canary))
            & (n_stable >= _MIN_STABLE[window_s])
            & ((counts[:, 0] > 0).sum(axis=1) >= 2)
            & (bad > _MIN_EXCESS * expected)
            & (log_likelihood > _MIN_LOG_LIKELIHOOD)
        )
        return gross, np.stack([bad, n_canary, expected], axis=1)

    def words(self, at: FloatArray, what: str = "requests") -> str:
        """The first rollout's alarm for a person. `what` was counted."""
        first = np.zeros(1, dtype=np.int64)
        for window_s in (SHORT_S, LONG_S):
            gross, numbers = self._gross(at, first, window_s)
            if gross[0]:
                bad, n_canary, expected = numbers[0]
                return (
                    f"guardrail: {bad:,.0f} of the canary's {n_canary:,.0f} {what} failed within {window_s:.0f} s; "
                    f"stable's failures explain {expected:.1f}"
                )
        return f"guardrail: none of the canary's {self.answered[0, 1]:,.0f} {what} in this step was answered"
