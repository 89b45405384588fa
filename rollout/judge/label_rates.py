"""Whether labels come for both versions alike. Where they do not, what they say of accuracy is no evidence.

Feedback that is late is harmless as long as it is late for both; feedback that goes missing for one version only (a
client that reports mistakes alone, a broken pipeline) makes a healthy version look bad, or a bad one good.
"""

from __future__ import annotations

import math

import numpy as np

from rollout.judge.counts import Arms
from rollout.judge.evalues import BoolArray, FloatArray, IntArray, rate_ratio
from rollout.judge.rows import Rows

TOLERATED_RATIO = 1.25
_ALTERNATIVE_RATIO = 2.0
_FAR_RATIO = 2.0
_LOG_ALARM = math.log(100.0)
_LOG_MOST = 30.0
_LEAST_WAIT_S = 5.0
_WINDOW_ANSWERS, _WINDOW_S = 20.0, 5.0
"""Rates are compared in windows in which each version gave this many answers: labels come in other ticks than the
answers that they belong to."""
_UNKNOWN = -1.0


class LabelRates(Rows):
    """Labels (and rewards) per answer, canary against stable. Each side is an e-detector, as in `SampleRatio`.

    After a change of weight the labels of the new traffic come as late as labels do: comparing begins twice the delay
    of the canary's first label into a step.
    """

    arrays = ("log_e", "log_alike", "first_answer_s", "lag_s", "step", "window", "window_s")

    def __init__(self, runs: int):
        self.log_e: FloatArray = np.zeros((runs, 2))
        self.first_answer_s: FloatArray = np.full(runs, _UNKNOWN)
        self.lag_s: FloatArray = np.full(runs, _UNKNOWN)
        self.log_alike: FloatArray = np.zeros((runs, 2))
        """Evidence, in this step, against one version's rate being `_FAR_RATIO` times the other's."""
        self.window: FloatArray = np.zeros((runs, 4))
        self.window_s: FloatArray = np.zeros(runs)
        self.step: FloatArray = np.zeros((runs, 4))
        """In this step, once they could be compared: labels and answers of the canary, of stable."""

    def start_step(self, rows: IntArray) -> None:
        self.log_e[rows] = 0.0
        self.log_alike[rows] = 0.0
        for counts in (self.step, self.window, self.window_s):
            counts[rows] = 0.0

    def observe(
        self, canary: Arms, stable: Arms, seconds: FloatArray, judged_s: FloatArray, step_s: FloatArray
    ) -> None:
        tick = np.stack(
            [canary.labelled + canary.rewards, canary.ok, stable.labelled + stable.rewards, stable.ok], axis=1
        )
        first_answer = (self.first_answer_s < 0) & (canary.ok > 0)
        self.first_answer_s[first_answer] = judged_s[first_answer]
        first_label = (self.lag_s < 0) & (tick[:, 0] > 0)
        self.lag_s[first_label] = (judged_s - self.first_answer_s)[first_label]
        comparable = (self.lag_s >= 0) & (step_s >= 2.0 * self.lag_s + _LEAST_WAIT_S)
        if not comparable.any():
            return
        self.window += tick * comparable[:, None]
        self.window_s += seconds * comparable
        enough = (self.window[:, [1, 3]] >= _WINDOW_ANSWERS).all(axis=1) & (self.window_s >= _WINDOW_S)
        over = np.flatnonzero(enough)
        if over.size:
            self._compare(over)

    def _compare(self, rows: IntArray) -> None:
        canary, stable = self.window[rows, :2].T, self.window[rows, 2:].T
        for side, (one, other) in enumerate(((canary, stable), (stable, canary))):
            log_f = rate_ratio(one[0], one[1], other[0], other[1], TOLERATED_RATIO, _ALTERNATIVE_RATIO)
            self.log_alike[rows, side] += rate_ratio(one[0], one[1], other[0], other[1], _FAR_RATIO, 1.0)
            self.log_e[rows, side] = np.minimum(np.maximum(self.log_e[rows, side], 0.0) + log_f, _LOG_MOST)
        self.step[rows] += self.window[rows]
        self.window[rows] = 0.0
        self.window_s[rows] = 0.0

    def rates(self, row: int) -> tuple[float, float]:
        """Labels per answer of canary and stable in this step, of one rollout."""
        labels_canary, canary, labels_stable, stable = self.step[row].tolist()
        return labels_canary / max(canary, 1.0), labels_stable / max(stable, 1.0)

    @property
    def alike(self) -> BoolArray:
        """Where rates are shown to be about equal in this step, so that labels may speak against a version."""
        result: BoolArray = ~self.lopsided & (self.log_alike >= _LOG_ALARM).all(axis=1)
        return result

    @property
    def lopsided(self) -> BoolArray:
        """Where labels come for one version far more often than for the other."""
        result: BoolArray = (self.log_e >= _LOG_ALARM).any(axis=1)
        return result
