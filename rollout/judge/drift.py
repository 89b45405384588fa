"""Drift: does the canary predict the classes as often as stable does? A change, not by itself a harm.

With much traffic every real change of a model is significant, so it must be large as well (population stability index
above 0.2). What follows is the owner's to say (`DriftAction`): wait for a person, roll back, or nothing.
"""

from __future__ import annotations

import math

import numpy as np

from rollout.judge.counts import Arms
from rollout.judge.evalues import BoolArray, FloatArray, IntArray, rate_against
from rollout.judge.process import SAFE_START, EProcess
from rollout.judge.rows import Rows

LARGE_PSI = 0.2
_LOG_ALARM = math.log(1000.0)
_PSEUDO_COUNTS = 20.0
_CERTAIN = 100.0
"""Evidence for what cannot be otherwise: a class of 3 % cannot be predicted 10 points less often."""
SAFE_MARGIN = 0.1
"""To show that nothing drifted: no class is predicted this much more often, or less, as a share of all answers."""


class Drift(Rows):
    """Answers by predicted class: (rollouts, canary and stable, classes)."""

    arrays = ("seen", "log_e")
    parts = ("safe",)

    def __init__(self, runs: int, classes: int):
        self.seen: FloatArray = np.zeros((runs, 2, classes))
        self.log_e: FloatArray = np.zeros(runs)
        self.safe = EProcess(runs, (classes, 2), start=SAFE_START)

    def start_step(self, rows: IntArray) -> None:
        self.safe.begin(rows)

    def restart_safe(self, rows: IntArray) -> None:
        self.safe.restart(rows)

    def observe(self, canary: Arms, stable: Arms) -> None:
        if not self.seen.shape[2]:
            return
        now = np.stack([canary.predicted, stable.predicted], axis=1)
        both = np.flatnonzero(now.any(axis=2).all(axis=1))
        if both.size:
            self._grow(both, now[both])
        self.seen += now

    def _grow(self, rows: IntArray, now: FloatArray) -> None:
        """Prequential two-sample multinomial: each version's past frequencies against their mixture."""
        seen = self.seen[rows]
        pool = seen.sum(axis=1, keepdims=True) + 1.0
        guess = seen + _PSEUDO_COUNTS * pool / pool.sum(axis=2, keepdims=True)
        guess = guess / guess.sum(axis=2, keepdims=True)
        numbers = now.sum(axis=2, keepdims=True)
        mixed = (guess * numbers).sum(axis=1, keepdims=True) / numbers.sum(axis=1, keepdims=True)
        self.log_e[rows] += (now * np.log(guess / mixed)).sum(axis=(1, 2))
        stable = guess[:, 1]
        for side, null in enumerate((stable + SAFE_MARGIN, stable - SAFE_MARGIN)):
            possible = (null > 0.0) & (null < 1.0)
            null = np.where(possible, null, 0.5)
            alternative = np.where(possible, stable, 0.5)
            log_g = rate_against(now[:, 0], numbers[:, 0], alternative, null)
            self.safe.log_w[rows, :, side] += np.where(possible, log_g, _CERTAIN)

    @property
    def psi(self) -> FloatArray:
        """Population stability index of all that was seen; 0 without classes."""
        smooth = self.seen + 0.5
        share = smooth / smooth.sum(axis=2, keepdims=True)
        canary, stable = share[:, 0], share[:, 1]
        result: FloatArray = ((canary - stable) * np.log(canary / stable)).sum(axis=1)
        return result

    @property
    def drifted(self) -> BoolArray:
        if not self.seen.shape[2]:
            return np.zeros(len(self.log_e), dtype=bool)
        return (self.log_e >= _LOG_ALARM) & (self.psi > LARGE_PSI)

    def shown_alike(self, log_needed: float) -> BoolArray:
        """Where every class is shown to be within `SAFE_MARGIN`; true without classes."""
        result: BoolArray = (self.safe.log_w >= log_needed).all(axis=(1, 2))
        return result
