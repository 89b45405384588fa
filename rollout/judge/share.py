"""Sample-ratio test: does the data plane deliver the share of requests that was configured?

A share that is off means that something between the weight and the requests is broken (a lease that lapsed, a proxy
that was left behind, pinned callers), and that the two versions may not see the same kind of traffic. It is no fault of
the canary, so it holds and says so, until the share is right again.
"""

from __future__ import annotations

import math

import numpy as np

from rollout.judge.evalues import BoolArray, FloatArray, rate_against
from rollout.judge.rows import Rows

_SETTLING_S = 3.0
"""A tick that spans a change of weight has requests of both."""
_FURTHER = 1.5
"""Alternative: this many times beyond the tolerated odds."""
_MEMORY = 0.95
"""Per tick, of the share that is told to a person."""
_LOG_ALARM = math.log(10_000.0)
_LOG_MOST = 30.0


class SampleRatio(Rows):
    """Evidence that the canary's odds of a request are above (below) the configured ones, per rollout.

    Each side is an e-detector, M <- max(M, 1) f (Shin, Ramdas, Rinaldo, 2024): the mean time to a false alarm is at
    least as many ticks as the alarm's threshold, and it recovers when the share does.
    """

    arrays = ("log_e", "recent")

    def __init__(self, tolerance: float, runs: int):
        self._tolerance = tolerance
        self.log_e: FloatArray = np.zeros((runs, 2))
        self.recent: FloatArray = np.zeros((runs, 2))

    def observe(self, n_canary: FloatArray, n_stable: FloatArray, weight: FloatArray, step_s: FloatArray) -> None:
        """`weight`: the configured share; 0 where there is none to compare with."""
        judged = (weight > 0) & (weight < 1) & (step_s >= _SETTLING_S)
        odds = np.where(judged, weight, 0.5) / (1.0 - np.where(judged, weight, 0.5))
        log_f = np.zeros_like(self.log_e)
        for side, factor in enumerate((1.0 + self._tolerance, 1.0 / (1.0 + self._tolerance))):
            null, alternative = odds * factor, odds * factor * (_FURTHER if side == 0 else 1.0 / _FURTHER)
            log_f[:, side] = rate_against(
                n_canary, n_canary + n_stable, alternative / (1.0 + alternative), null / (1.0 + null)
            )
        grown = np.minimum(np.maximum(self.log_e, 0.0) + log_f, _LOG_MOST)
        self.log_e = np.where(judged[:, None], grown, self.log_e)
        counts = np.stack([n_canary, n_stable], axis=1)
        self.recent = np.where(judged[:, None], self.recent * _MEMORY + counts, 0.0)

    @property
    def delivered(self) -> FloatArray:
        """The canary's share of requests of late."""
        result: FloatArray = self.recent[:, 0] / np.maximum(self.recent.sum(axis=1), 1.0)
        return result

    @property
    def off(self) -> BoolArray:
        """Where the share is shown to be wrong."""
        result: BoolArray = (self.log_e >= _LOG_ALARM).any(axis=1)
        return result
