"""An owner's absolute ceiling: a share of bad requests that no version may exceed, whatever the other arm does.

Over the ceiling means shown to be over it (a sequential test, so that one unlucky request in ten is no violation).
The canary over it and stable not: roll back. Both: hold, since the canary is not the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rollout.judge.evalues import FloatArray, rate_against
from rollout.judge.process import EProcess, log_uniform

_RATIOS: FloatArray = np.array([1.5, 2.0, 4.0, 10.0, 40.0])
_STABLE_DECAY_PER_S = 0.97
"""Stable's share against the ceiling is that of the last half minute or so."""
_MIN_STABLE = 10.0


class Ceiling:
    """Evidence that the canary's share of bad requests is above `limit`."""

    def __init__(self, limit: float):
        self._limit = limit
        self._alternatives: FloatArray = np.minimum(limit * _RATIOS, (1.0 + limit) / 2.0)
        self._canary = EProcess((len(_RATIOS),), log_prior=log_uniform(len(_RATIOS)))
        self._bad_stable, self._n_stable = 0.0, 0.0

    def restart(self) -> None:
        self._canary.restart()

    def observe(self, bad_canary: float, n_canary: float, bad_stable: float, n_stable: float, seconds: float) -> None:
        if n_canary:
            self._canary.multiply(rate_against(bad_canary, n_canary, self._alternatives, self._limit))
        decay = _STABLE_DECAY_PER_S**seconds
        self._bad_stable = self._bad_stable * decay + bad_stable
        self._n_stable = self._n_stable * decay + n_stable

    def log_canary(self) -> float:
        return float(self._canary.log_e())

    @property
    def stable_over(self) -> bool:
        return self._n_stable >= _MIN_STABLE and self._bad_stable > self._limit * self._n_stable

    def to_json(self) -> dict[str, Any]:
        return {"canary": self._canary.log_w.tolist(), "stable": [self._bad_stable, self._n_stable]}

    def load(self, value: Mapping[str, Any]) -> None:
        self._canary.load(value["canary"])
        self._bad_stable, self._n_stable = (float(part) for part in value["stable"])
