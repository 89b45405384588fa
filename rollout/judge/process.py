"""Evidence that grows over ticks: a mixture of e-processes over alternatives and over starting moments.

Harm side and non-inferiority side of every metric keep one each; the metric supplies the factors.
"""

from __future__ import annotations

import math

import numpy as np

from rollout.judge.evalues import FloatArray, IntArray, log_sum_exp
from rollout.judge.rows import Rows

RESTART_EVERY_S = 60.0
"""How often a part of the reserved mass starts afresh."""

RESTARTS = 120
"""Restarts in all: two hours, after which the reserve is spent and the sum of all mass is 1."""

HARM_START = 0.9
"""Mass at the beginning. The rest restarts over time: without it a canary that is healthy for ten minutes and
then breaks must first burn its accumulated good evidence."""

SAFE_START = 0.9
"""The same for non-inferiority, whose process is new in every step: less reserve, so that a healthy version hardly
waits for it, yet a burst of common errors early in the step can be outlived."""


class EProcess(Rows):
    """W[rollout, ..., j] per rollout, row and alternative j, in logs, with recursion W <- (W + restart mass) * f.

    E = sum_j prior_j W_j is an e-process: E[E] <= 1 at any stopping time while the null holds.
    """

    arrays = ("log_w",)

    def __init__(
        self, runs: int, shape: tuple[int, ...], *, log_prior: FloatArray | None = None, start: float = HARM_START
    ):
        self.log_w: FloatArray = np.full((runs, *shape), math.log(start))
        self._log_prior = log_prior
        self._log_start = math.log(start)
        self._log_restart = math.log((1.0 - start) / RESTARTS)

    def begin(self, rows: IntArray) -> None:
        """Forget everything of these rollouts."""
        self.log_w[rows] = self._log_start

    def restart(self, rows: IntArray) -> None:
        """Start a share of the reserve; the caller does so at most `RESTARTS` times, on a schedule known beforehand."""
        self.log_w[rows] = np.logaddexp(self.log_w[rows], self._log_restart)

    def multiply(self, rows: IntArray, log_factor: FloatArray) -> None:
        self.log_w[rows] += log_factor

    def log_e(self) -> FloatArray:
        """Log evidence per row: over the alternatives by their prior, or each by itself where there is no prior."""
        if self._log_prior is None:
            return self.log_w
        return log_sum_exp(self.log_w + self._log_prior)


def log_uniform(count: int) -> FloatArray:
    """Log prior that treats `count` alternatives alike."""
    return np.full(count, -math.log(count))
