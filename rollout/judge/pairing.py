"""Pairs canary with stable in the same seconds, also where a second sees only one of them.

At two requests a second most ticks hold no canary request; judged one by one, all of stable's counts in them would be
lost, and some of the canary's. So counts are kept for some seconds until both arms have some. When that is depends
on the numbers of requests alone, never on how they ended, so the pairs are as sound as ticks.
"""

from __future__ import annotations

import numpy as np

from rollout.judge.evalues import FloatArray, IntArray
from rollout.judge.rows import Rows

LONGEST_S = 10.0
"""Counts that found no partner by then are let go: load and dependencies may have changed since."""


class Pairing(Rows):
    """Collects the counts of both arms, `size` numbers each, per rollout."""

    arrays = ("canary", "stable", "n_canary", "n_stable", "seconds")

    def __init__(self, runs: int, size: int):
        self.canary: FloatArray = np.zeros((runs, size))
        self.stable: FloatArray = np.zeros((runs, size))
        self.n_canary: FloatArray = np.zeros(runs)
        self.n_stable: FloatArray = np.zeros(runs)
        self.seconds: FloatArray = np.zeros(runs)

    def clear(self, rows: IntArray) -> None:
        for counts in (self.canary, self.stable, self.n_canary, self.n_stable, self.seconds):
            counts[rows] = 0.0

    def add(
        self, canary: FloatArray, n_canary: FloatArray, stable: FloatArray, n_stable: FloatArray, seconds: FloatArray
    ) -> tuple[IntArray, IntArray]:
        """Take a tick in. The rollouts whose collection is over, and those of them that have a pair.

        Use the pairs and `clear` what is over (a pair, or too old to become one).
        """
        self.canary += canary
        self.stable += stable
        self.n_canary += n_canary
        self.n_stable += n_stable
        self.seconds += seconds
        paired = (self.n_canary > 0) & (self.n_stable > 0)
        return np.flatnonzero(paired | (self.seconds >= LONGEST_S)), np.flatnonzero(paired)
