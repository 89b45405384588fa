"""Pairs canary with stable in the same seconds, also where a second sees only one of them.

At two requests a second most ticks hold no canary request; judged one by one, all of stable's counts in them would be
lost, and some of the canary's. So counts are kept for some seconds until both arms have some. When that is depends
on the numbers of requests alone, never on how they ended, so the pairs are as sound as ticks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rollout.judge.evalues import FloatArray

LONGEST_S = 10.0
"""Counts that found no partner by then are let go: load and dependencies may have changed since."""


class Pairing:
    """Collects the counts of both arms, `size` numbers each."""

    def __init__(self, size: int):
        self._size = size
        self.clear()

    def clear(self) -> None:
        self.canary: FloatArray = np.zeros(self._size)
        self.stable: FloatArray = np.zeros(self._size)
        self.n_canary, self.n_stable, self.seconds = 0.0, 0.0, 0.0

    def add(self, canary: FloatArray, n_canary: float, stable: FloatArray, n_stable: float, seconds: float) -> bool:
        """Take a tick in. True when the collection is over (a pair, or too old to become one): use and `clear` it."""
        if self.seconds:
            self.canary, self.stable = self.canary + canary, self.stable + stable
        else:
            self.canary, self.stable = canary, stable
        self.n_canary += n_canary
        self.n_stable += n_stable
        self.seconds += seconds
        return self.paired or self.seconds >= LONGEST_S

    @property
    def paired(self) -> bool:
        return self.n_canary > 0 and self.n_stable > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "canary": self.canary.tolist(),
            "stable": self.stable.tolist(),
            "n": [self.n_canary, self.n_stable, self.seconds],
        }

    def load(self, value: Mapping[str, Any]) -> None:
        self.canary = np.array(value["canary"], dtype=np.float64)
        self.stable = np.array(value["stable"], dtype=np.float64)
        self.n_canary, self.n_stable, self.seconds = (float(part) for part in value["n"])
