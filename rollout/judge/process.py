"""Evidence that grows over ticks: a mixture of e-processes over alternatives and over starting moments.

Harm side and non-inferiority side of every metric keep one each; the metric supplies the factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rollout.judge.evalues import FloatArray, log_sum_exp

RESTART_EVERY_S = 60.0
"""How often a part of the reserved mass starts afresh."""

RESTARTS = 120
"""Restarts in all: two hours, after which the reserve is spent and the sum of all mass is 1."""

HARM_START = 0.8
"""Mass at the beginning. The rest restarts over time: without it a canary that is healthy for ten minutes and
then breaks must first burn its accumulated good evidence."""

SAFE_START = 0.9
"""The same for non-inferiority, whose process is new in every step: less reserve, so that a healthy version hardly
waits for it, yet a burst of common errors early in the step can be outlived."""


class EProcess:
    """W[..., j] per row and alternative j, in logs, with recursion W <- (W + restart mass) * f.

    E = sum_j prior_j W_j is an e-process: E[E] <= 1 at any stopping time while the null holds.
    """

    def __init__(self, shape: tuple[int, ...], *, log_prior: FloatArray | None = None, start: float = HARM_START):
        self.log_w: FloatArray = np.full(shape, math.log(start))
        self._log_prior = log_prior
        self._log_restart = math.log((1.0 - start) / RESTARTS)

    def restart(self) -> None:
        """Start a share of the reserve; the caller does so at most `RESTARTS` times, on a schedule known beforehand."""
        self.log_w = np.logaddexp(self.log_w, self._log_restart)

    def multiply(self, log_factor: FloatArray) -> None:
        self.log_w = self.log_w + log_factor

    def log_e(self) -> FloatArray:
        """Log evidence per row: over the alternatives by their prior, or each by itself where there is no prior."""
        if self._log_prior is None:
            return self.log_w
        return log_sum_exp(self.log_w + self._log_prior)

    def load(self, values: Sequence[float] | Sequence[Sequence[float]]) -> None:
        """Take back what `log_w.tolist()` gave. Raises ValueError when the shape is not this process's."""
        loaded = np.array(values, dtype=np.float64)
        if loaded.shape != self.log_w.shape:
            raise ValueError(
                f"judge state: expected evidence of shape {self.log_w.shape}, received {loaded.shape}; "
                "the settings differ from those the state was written under: start the step anew"
            )
        self.log_w = loaded


def log_uniform(count: int) -> FloatArray:
    """Log prior that treats `count` alternatives alike."""
    return np.full(count, -math.log(count))
