"""Over-dispersion: how much noisier the two arms are, against each other, than independent requests would be.

Error clusters, heavy users and per-replica swings make counts vary more than binomial ones and would inflate even
e-values. Every log factor is divided by phi >= 1, which keeps it an e-value (Jensen: E f^(1/phi) <= 1) as long as phi
comes from past ticks only. `OnlineDispersion` learns phi during the rollout, `Calibration` brings it from history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rollout.judge.evalues import FloatArray, IntArray
from rollout.judge.rows import Rows

BLOCK_S = 60.0
MIN_BLOCK_VARIANCE = 2.0
"""Below this a block's z is too discrete to tell noise from rounding; it goes on until it has more."""

PRIOR_BLOCKS = 5.0
LARGEST_PHI = 10.0
LARGEST_SQUARE = 20.0
"""Half a squared difference counts at most this much: the onset of real harm is one jump, not noise, and must not
buy the canary time."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """phi from a stable-against-stable comparison of history: scale + slope x recent variance.

    `scale` is the ratio of observed to binomial variance over 10 s windows, `slope` how it grows with the variance of
    longer windows (both 1 and 0 when nothing is known). Variance is that of the canary's excess of errors.
    """

    scale: float = 1.0
    slope: float = 0.0

    def phi(self, recent_variance: FloatArray) -> FloatArray:
        return np.maximum(1.0, self.scale + self.slope * recent_variance)


class OnlineDispersion(Rows):
    """phi per rollout and row from successive differences of standardised excess over blocks of at least `BLOCK_S`.

    Differences, because a lasting excess (real harm) cancels in them and only noise remains. Numerator and variance
    are summed tick by tick and never across steps: pooled over a weight change they would see Simpson's paradox.
    """

    arrays = ("excess", "variance", "seconds", "last", "has_last", "squares", "differences", "phi")

    def __init__(self, runs: int, rows: int):
        self.excess: FloatArray = np.zeros((runs, rows))
        self.variance: FloatArray = np.zeros((runs, rows))
        self.seconds: FloatArray = np.zeros(runs)
        self.last: FloatArray = np.zeros((runs, rows))
        self.has_last: FloatArray = np.zeros((runs, rows))
        self.squares: FloatArray = np.zeros((runs, rows))
        self.differences: FloatArray = np.zeros((runs, rows))
        self.phi: FloatArray = np.ones((runs, rows))

    def start_step(self, rows: IntArray) -> None:
        for block in (self.excess, self.variance, self.seconds, self.has_last):
            block[rows] = 0.0

    def observe(
        self,
        rows: IntArray,
        bad_canary: FloatArray,
        n_canary: FloatArray,
        bad_stable: FloatArray,
        n_stable: FloatArray,
        seconds: FloatArray,
    ) -> None:
        """Counts of one tick with requests in both arms: bad (rollouts, rows), numbers and seconds (rollouts)."""
        n_canary, n_stable = n_canary[:, None], n_stable[:, None]
        total = n_canary + n_stable
        rate = (bad_canary + bad_stable) / total
        share = n_canary / total
        self.excess[rows] += bad_canary - n_canary * rate
        # Given the tick's total, of mean n_c n_s rate (1 - rate) / (total - 1) while the arms are alike; each arm's
        # own count in it, so that lasting harm, whose counts vary more, is not taken for noise either.
        variance = ((1.0 - share) ** 2 * bad_canary + share**2 * bad_stable) * (1.0 - rate)
        self.variance[rows] += variance * (total / (total - 1.0))
        self.seconds[rows] += seconds
        over = np.flatnonzero(self.seconds >= BLOCK_S)
        if over.size:
            self._close_block(over)

    def _close_block(self, rows: IntArray) -> None:
        variance, last, had_last = self.variance[rows], self.last[rows], self.has_last[rows]
        full = variance >= MIN_BLOCK_VARIANCE
        value = np.where(full, self.excess[rows] / np.sqrt(np.maximum(variance, MIN_BLOCK_VARIANCE)), last)
        paired = full & (had_last > 0)
        half_square = np.minimum((value - last) ** 2 / 2.0, LARGEST_SQUARE)
        self.squares[rows] += np.where(paired, half_square, 0.0)
        self.differences[rows] += paired
        self.last[rows] = value
        self.has_last[rows] = np.where(full, 1.0, had_last)
        self.excess[rows] = np.where(full, 0.0, self.excess[rows])
        self.variance[rows] = np.where(full, 0.0, variance)
        self.seconds[rows] = 0.0
        raw = (PRIOR_BLOCKS + self.squares[rows]) / (PRIOR_BLOCKS + self.differences[rows])
        self.phi[rows] = np.clip(raw, 1.0, LARGEST_PHI)
