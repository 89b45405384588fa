"""Quality of answers: labels (right or wrong) and bounded rewards, compared by a ratio margin.

Feedback joins the arm that served the request and counts when it arrives: delay is harmless, since both arms wait
alike. A reward in [0, 1] counts as the fraction 1 - reward of a wrong answer, which keeps every factor an e-value:
log(r a + (1-r) b) >= r log a + (1-r) log b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rollout.judge.errors import requests_words
from rollout.judge.evalues import FloatArray, two_by_two
from rollout.judge.margins import Margin
from rollout.judge.pairing import Pairing
from rollout.judge.process import SAFE_START, EProcess, log_uniform
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import MetricReport, evidence_words, percent_words, share_words

_SHIFTS: FloatArray = np.array([0.08, 0.15, 0.3, 0.6, 1.2, 2.4, 4.0])
"""Alternatives, in logits above stable. The last two end a badly broken model within a dozen labels."""

MIN_STABLE_LABELS = 30
DECAY_PER_S = 0.995**0.1
"""Memory of stable's wrong rate: half an hour, since labels are few."""
_LOWEST, _HIGHEST = 0.0005, 0.98


class LabelEvidence:
    """One metric of `wrong` among `n` answers with feedback; made twice, for labels and for rewards."""

    def __init__(self, settings: JudgeSettings, metric: Metric):
        self._settings = settings
        self._metric = metric
        self._harm = EProcess((len(_SHIFTS),), log_prior=log_uniform(len(_SHIFTS)))
        self._pair = Pairing(1)
        self._totals = [0.0, 0.0, 0.0, 0.0]
        self._seen_stable = 0.0
        self._recent_wrong, self._recent_n = 0.0, 0.0
        self._margin = Margin.fixed(None)
        self._ratios: FloatArray = np.full(1, 2.0)
        self._safe = EProcess((1,), start=SAFE_START)

    def start_step(self, margin: Margin) -> None:
        self._margin = margin
        self._ratios = margin.values(placeholder=2.0)
        self._safe = EProcess(self._ratios.shape, start=SAFE_START)
        self._pair.clear()

    def restart(self) -> None:
        self._harm.restart()

    def restart_safe(self) -> None:
        self._safe.restart()

    @property
    def present(self) -> bool:
        return self._totals[1] + self._totals[3] > 0

    @property
    def _theta_stable(self) -> float:
        return min(max((self._recent_wrong + 0.5) / (self._recent_n + 1.0), _LOWEST), _HIGHEST)

    def _effective_ratios(self, theta: float) -> FloatArray:
        """Ratios in force: never finer than the floor in points, which is known before the tick as theta is."""
        return np.maximum(self._ratios, 1.0 + self._settings.wrong_floor / theta)

    def observe(
        self, wrong_canary: float, n_canary: float, wrong_stable: float, n_stable: float, seconds: float
    ) -> None:
        if not (n_canary or n_stable or self.present):
            return
        pair = self._pair
        if pair.add(np.array([wrong_canary]), n_canary, np.array([wrong_stable]), n_stable, seconds):
            wrong = float(pair.stable[0])
            if pair.paired and self._seen_stable >= MIN_STABLE_LABELS:
                self._grow(float(pair.canary[0]), pair.n_canary, wrong, pair.n_stable)
            # Only now: the rates that a pair is judged by must not know it.
            decay = DECAY_PER_S**pair.seconds
            self._recent_wrong = self._recent_wrong * decay + wrong
            self._recent_n = self._recent_n * decay + pair.n_stable
            self._seen_stable += pair.n_stable
            pair.clear()
        self._totals = [
            before + now
            for before, now in zip(self._totals, (wrong_canary, n_canary, wrong_stable, n_stable), strict=True)
        ]

    def _grow(self, wrong_canary: float, n_canary: float, wrong_stable: float, n_stable: float) -> None:
        theta = self._theta_stable
        odds = theta / (1.0 - theta) * np.exp(_SHIFTS)
        self._harm.multiply(
            two_by_two(
                wrong_canary,
                n_canary,
                wrong_stable,
                n_stable,
                theta_canary=np.minimum(odds / (1.0 + odds), 0.999),
                theta_stable=theta,
                thinning=1.0 / self._settings.wrong_tolerance,
            )
        )
        ratios = self._effective_ratios(theta)
        self._safe.multiply(
            two_by_two(wrong_canary, n_canary, wrong_stable, n_stable, theta / ratios, theta, thinning=1.0 / ratios)
        )

    def log_harm(self) -> float:
        return float(self._harm.log_e())

    def report(self, judged_s: float, log_needed: float, log_safe_needed: float) -> MetricReport:
        wrong_c, n_c, wrong_s, n_s = self._totals
        row, nominal = self._margin.row_at(judged_s), self._margin.at(judged_s)
        theta = self._theta_stable
        ratio = float(self._effective_ratios(theta)[row])
        log_harm, log_safe = self.log_harm(), float(self._safe.log_e()[row])
        missing: int | None = 0
        safe_words = ""
        if nominal is not None and log_safe < log_safe_needed:
            missing = self._missing(theta, ratio, log_safe_needed - log_safe)
            safe_words = (
                f"{self._metric.value}: {requests_words(missing, self._unit)} to show less than {ratio:.2f} times "
                f"stable's share of {self._noun} ({percent_words(theta)})"
            )
        return MetricReport(
            metric=self._metric,
            canary_bad=wrong_c,
            canary_total=n_c,
            stable_bad=wrong_s,
            stable_total=n_s,
            harm_log_e=log_harm,
            harm_log_needed=log_needed,
            suspicion_log_e=log_harm,
            safe_log_e=log_safe,
            safe_log_needed=log_safe_needed,
            margin=None if nominal is None else ratio,
            phi=1.0,
            missing_requests=missing,
            harm_words=(
                f"{self._metric.value}: {share_words(wrong_c, n_c)} {self._noun} against "
                f"{share_words(wrong_s, n_s)} of stable; {evidence_words(log_harm, log_needed)}"
            ),
            safe_words=safe_words,
        )

    @property
    def _noun(self) -> str:
        return "wrong" if self._metric is Metric.ACCURACY else "reward lost"

    @property
    def _unit(self) -> str:
        return "labels of the canary" if self._metric is Metric.ACCURACY else "rewards of the canary"

    def _missing(self, theta: float, ratio: float, log_missing: float) -> int | None:
        """Canary labels until a canary like stable has shown it, at the shares of labels seen so far."""
        _, n_c, _, n_s = self._totals
        if not n_c or not n_s:
            return None
        stable_per_canary = n_s / n_c
        growth = float(
            two_by_two(
                theta, 1.0, theta * stable_per_canary, stable_per_canary, theta / ratio, theta, thinning=1.0 / ratio
            )
        )
        return math.ceil(log_missing / growth) if growth > 1e-9 else None

    def to_json(self) -> dict[str, Any]:
        return {
            "harm": self._harm.log_w.tolist(),
            "safe": self._safe.log_w.tolist(),
            "pair": self._pair.to_json(),
            "totals": list(self._totals),
            "seen_stable": self._seen_stable,
            "recent": [self._recent_wrong, self._recent_n],
        }

    def load(self, value: Mapping[str, Any]) -> None:
        self._harm.load(value["harm"])
        self._safe.load(value["safe"])
        self._pair.load(value["pair"])
        self._totals = [float(total) for total in value["totals"]]
        self._seen_stable = float(value["seen_stable"])
        self._recent_wrong, self._recent_n = (float(part) for part in value["recent"])
