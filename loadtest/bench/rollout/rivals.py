"""Other systems' rules on the same worlds, as their public documentation describes their usual set-up.

They judge intervals by thresholds or by a test per interval. Steps and the last stage are Penstock's, so that only the
rule differs; where a rule promotes after the last step, there is no bake. Written from the documents, not from code:
https://docs.flagger.app/usage/metrics, https://argo-rollouts.readthedocs.io/en/stable/features/analysis,
https://spinnaker.io/docs/guides/user/canary/config and .../canary/judge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from loadtest.bench.rollout.traffic import EDGES_US, FloatArray, IntArray
from rollout.judge.counts import Arms
from rollout.judge.evalues import BoolArray
from rollout.machine import State

STEPS_BP = (1000, 3000, 9500)
INTERVAL_S = 60
_EDGES_S: FloatArray = np.array([*EDGES_US, EDGES_US[-1] * 1.05]) / 1e6


class Interval(ABC):
    """A rule that looks at each minute's sums: per rollout and arm (canary, stable)."""

    def __init__(self, runs: int) -> None:
        self.state = [State.STEP] * runs
        self.reason = [""] * runs
        self.step: IntArray = np.zeros(runs, dtype=np.int64)
        self._sums: FloatArray = np.zeros((runs, 2, 2))
        self._latency: FloatArray = np.zeros((runs, 2, len(_EDGES_S)))

    @property
    def weight_bp(self) -> IntArray:
        weights: IntArray = np.array(STEPS_BP)[np.minimum(self.step, len(STEPS_BP) - 1)]
        return weights

    def keep(self, rows: IntArray) -> None:
        self.state = [self.state[row] for row in rows]
        self.reason = [self.reason[row] for row in rows]
        self.step, self._sums, self._latency = self.step[rows], self._sums[rows], self._latency[rows]

    def see(self, time: int, canary: Arms, stable: Arms) -> None:
        for arm, counts in enumerate((canary, stable)):
            self._sums[:, arm, 0] += counts.requests - counts.ok
            self._sums[:, arm, 1] += counts.requests
            self._latency[:, arm] += counts.latency
        if time % INTERVAL_S == 0:
            fails, advances = self.look(time // INTERVAL_S, self._sums, self._latency)
            self._sums, self._latency = np.zeros_like(self._sums), np.zeros_like(self._latency)
            self.step = self.step + (advances & ~fails)
            for row in np.flatnonzero(fails | advances):
                last = self.step[row] >= len(STEPS_BP) - 1
                over = self.step[row] >= len(STEPS_BP)
                if fails[row]:
                    self.state[row], self.reason[row] = State.ROLLING_BACK, "threshold"
                else:
                    self.state[row] = State.PROMOTING if over else State.BAKING if last else State.STEP

    @abstractmethod
    def look(self, interval: int, sums: FloatArray, latency: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Which rollouts fail now, and which go on to the next step."""


def quantile_s(latency: FloatArray, q: float) -> FloatArray:
    """Upper edge of the bucket that holds the quantile, seconds; 0 without responses."""
    below = np.cumsum(latency, axis=-1)
    total = below[..., -1]
    index = (below < q * total[..., None]).sum(axis=-1)
    result: FloatArray = np.where(total > 0, _EDGES_S[np.minimum(index, len(_EDGES_S) - 1)], 0.0)
    return result


class Flagger(Interval):
    """Each minute: success rate at least 99 % and p99 at most 500 ms, else (or without traffic) one failed check.

    Five failed checks roll back; a step takes two passed ones here, since there are three steps, not ten.
    """

    def __init__(self, runs: int) -> None:
        super().__init__(runs)
        self._failed: IntArray = np.zeros(runs, dtype=np.int64)
        self._passed: IntArray = np.zeros(runs, dtype=np.int64)

    def keep(self, rows: IntArray) -> None:
        super().keep(rows)
        self._failed, self._passed = self._failed[rows], self._passed[rows]

    def look(self, interval: int, sums: FloatArray, latency: FloatArray) -> tuple[BoolArray, BoolArray]:
        bad, n = sums[:, 0].T
        good = (n > 0) & (bad <= 0.01 * n) & (quantile_s(latency[:, 0], 0.99) <= 0.5)
        self._failed += ~good
        self._passed += good
        advances = self._passed >= 2
        self._passed[advances] = 0
        return self._failed >= 5, advances


class Argo(Interval):
    """Background analysis: each minute the success rate must be at least 95 %; more than three failed measurements
    abort (`failureLimit: 3`). Steps are timed: five minutes each."""

    def __init__(self, runs: int) -> None:
        super().__init__(runs)
        self._failed: IntArray = np.zeros(runs, dtype=np.int64)

    def keep(self, rows: IntArray) -> None:
        super().keep(rows)
        self._failed = self._failed[rows]

    def look(self, interval: int, sums: FloatArray, latency: FloatArray) -> tuple[BoolArray, BoolArray]:
        bad, n = sums[:, 0].T
        self._failed += (n > 0) & (bad > 0.05 * n)
        return self._failed > 3, np.full(len(bad), interval % 5 == 0)


class Kayenta(Interval):
    """Canary analysis of a step's minutes: Mann-Whitney U at 98 % per metric (error rate, median, p99), higher than
    baseline is a failed metric; score = share of passed metrics. Below 75 after the step's hour (half an hour at the
    last) fails; the documents ask for 50 points, so an hour is the least."""

    _MINUTES = 60

    def __init__(self, runs: int) -> None:
        super().__init__(runs)
        self._series: FloatArray = np.zeros((runs, 0, 2, 3))

    def keep(self, rows: IntArray) -> None:
        super().keep(rows)
        self._series = self._series[rows]

    def look(self, interval: int, sums: FloatArray, latency: FloatArray) -> tuple[BoolArray, BoolArray]:
        rate = sums[:, :, 0] / np.maximum(sums[:, :, 1], 1.0)
        point = np.stack([rate, quantile_s(latency, 0.5), quantile_s(latency, 0.99)], axis=2)
        self._series = np.concatenate([self._series, point[:, None]], axis=1)
        nobody = np.zeros(len(rate), dtype=bool)
        if self._series.shape[1] < self._MINUTES:
            return nobody, nobody
        higher = one_sided_mann_whitney(self._series[:, :, 0], self._series[:, :, 1]) < 0.01
        score = 100.0 * (1.0 - higher.mean(axis=1))
        self._series = self._series[:, :0]
        return score < 75.0, score >= 75.0


def one_sided_mann_whitney(canary: FloatArray, stable: FloatArray) -> FloatArray:
    """p-values of "canary is higher", (rollouts, metrics), from series (rollouts, points, metrics); normal form with
    ties."""
    n = canary.shape[1]
    ranks = rankdata(np.concatenate([canary, stable], axis=1), axis=1)
    u = ranks[:, :n].sum(axis=1) - n * (n + 1) / 2.0
    mean = n * n / 2.0
    spread = np.sqrt(np.maximum(n * n * (ranks.var(axis=1) * 12.0 / (2 * n - 1)) / 12.0, 1e-12))
    result: FloatArray = ndtr(-(u - mean - 0.5) / spread)
    return result
