"""Over-dispersion: how much noisier the two arms are, against each other, than independent requests would be.

Error clusters, heavy users and per-replica swings make counts vary more than binomial ones and would inflate even
e-values. Every log factor is divided by phi >= 1, which keeps it an e-value (Jensen: E f^(1/phi) <= 1) as long as phi
comes from past ticks only. `OnlineDispersion` learns phi during the rollout, `Calibration` brings it from history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout.judge.evalues import FloatArray

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
    """phi from a stable-against-stable comparison of history: 1 + 0.7 (scale - 1) + slope x recent variance.

    `scale` is the ratio of observed to binomial variance over 10 s windows, `slope` how it grows with the variance of
    longer windows (both 1 and 0 when nothing is known). Variance is that of the canary's excess of errors.
    """

    scale: float = 1.0
    slope: float = 0.0

    def phi(self, recent_variance: float) -> float:
        return max(1.0, 1.0 + 0.7 * (self.scale - 1.0) + self.slope * recent_variance)


class OnlineDispersion:
    """phi per row from successive differences of standardised excess over blocks of at least `BLOCK_S`.

    Differences, because a lasting excess (real harm) cancels in them and only noise remains. Numerator and variance
    are summed tick by tick and never across steps: pooled over a weight change they would see Simpson's paradox.
    """

    def __init__(self, rows: int):
        self._excess: FloatArray = np.zeros(rows)
        self._variance: FloatArray = np.zeros(rows)
        self._seconds = 0.0
        self._last: FloatArray = np.zeros(rows)
        self._has_last: FloatArray = np.zeros(rows)
        self._squares: FloatArray = np.zeros(rows)
        self._differences: FloatArray = np.zeros(rows)
        self.phi: FloatArray = np.ones(rows)

    def start_step(self) -> None:
        self._excess = np.zeros_like(self._excess)
        self._variance = np.zeros_like(self._variance)
        self._seconds = 0.0
        self._has_last = np.zeros_like(self._has_last)

    def observe(
        self, bad_canary: FloatArray, n_canary: float, bad_stable: FloatArray, n_stable: float, seconds: float
    ) -> None:
        """Counts of one tick with requests in both arms, one bad count per row."""
        total = n_canary + n_stable
        rate = (bad_canary + bad_stable) / total
        share = n_canary / total
        self._excess = self._excess + (bad_canary - n_canary * rate)
        # Given the tick's total, of mean n_c n_s rate (1 - rate) / (total - 1) while the arms are alike; each arm's
        # own count in it, so that lasting harm, whose counts vary more, is not taken for noise either.
        variance = ((1.0 - share) ** 2 * bad_canary + share**2 * bad_stable) * (1.0 - rate)
        self._variance = self._variance + variance * (total / (total - 1.0))
        self._seconds += seconds
        if self._seconds >= BLOCK_S:
            self._close_block()

    def _close_block(self) -> None:
        full = self._variance >= MIN_BLOCK_VARIANCE
        value = np.where(full, self._excess / np.sqrt(np.maximum(self._variance, MIN_BLOCK_VARIANCE)), self._last)
        paired = full & (self._has_last > 0)
        half_square = np.minimum((value - self._last) ** 2 / 2.0, LARGEST_SQUARE)
        self._squares = self._squares + np.where(paired, half_square, 0.0)
        self._differences = self._differences + paired
        self._last = value
        self._has_last = np.where(full, 1.0, self._has_last)
        self._excess = np.where(full, 0.0, self._excess)
        self._variance = np.where(full, 0.0, self._variance)
        self._seconds = 0.0
        raw = (PRIOR_BLOCKS + self._squares) / (PRIOR_BLOCKS + self._differences)
        self.phi = np.clip(raw, 1.0, LARGEST_PHI)

    def to_json(self) -> dict[str, Any]:
        return {
            "excess": self._excess.tolist(),
            "variance": self._variance.tolist(),
            "seconds": self._seconds,
            "last": self._last.tolist(),
            "has_last": self._has_last.tolist(),
            "squares": self._squares.tolist(),
            "differences": self._differences.tolist(),
            "phi": self.phi.tolist(),
        }

    def load(self, value: Mapping[str, Any]) -> None:
        self._excess = np.array(value["excess"], dtype=np.float64)
        self._variance = np.array(value["variance"], dtype=np.float64)
        self._seconds = float(value["seconds"])
        self._last = np.array(value["last"], dtype=np.float64)
        self._has_last = np.array(value["has_last"], dtype=np.float64)
        self._squares = np.array(value["squares"], dtype=np.float64)
        self._differences = np.array(value["differences"], dtype=np.float64)
        self.phi = np.array(value["phi"], dtype=np.float64)
