"""Errors: does the canary fail more often than stable? Both sides of the question, second by second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rollout.judge.dispersion import OnlineDispersion
from rollout.judge.evalues import FloatArray, rate_against, rate_ratio
from rollout.judge.margins import Margin
from rollout.judge.pairing import Pairing
from rollout.judge.process import SAFE_START, EProcess
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import MetricReport, evidence_words, percent_words, share_words

_RATIOS: FloatArray = np.geomspace(1.5, 1500.0, 16)
_LOG_RATIO_PRIOR: FloatArray = -0.15 * np.arange(16.0) - math.log(np.exp(-0.15 * np.arange(16.0)).sum())

FLOOR = 0.0005
"""While stable is free of errors every single canary error is infinitely worse; the canary must then also be shown to
fail more often than this."""
_FLOOR_RATES: FloatArray = np.geomspace(0.001, 0.9, 8)
_LOG_FLOOR_PRIOR: FloatArray = np.full(8, -math.log(8.0))

DECAY_PER_S = 0.97**0.1
"""Memory of stable's recent error rate: about five and a half minutes."""
_PRIOR_RATE, _PRIOR_REQUESTS = 0.001, 20.0
_VARIANCE_DECAY_PER_S = 0.95**0.1


class ErrorEvidence:
    def __init__(self, settings: JudgeSettings):
        self._settings = settings
        self._relative = EProcess((16,), log_prior=_LOG_RATIO_PRIOR)
        self._absolute = EProcess((8,), log_prior=_LOG_FLOOR_PRIOR)
        self._alternatives = settings.error_tolerance * _RATIOS
        self._dispersion = OnlineDispersion(1)
        self._pair = Pairing(1)
        self._totals = [0.0, 0.0, 0.0, 0.0]
        self._recent_bad, self._recent_n, self._recent_variance = 0.0, 0.0, 0.0
        self._margin = Margin.fixed(None)
        self._margins: FloatArray = np.ones(1)
        self._safe = EProcess((1,), start=SAFE_START)

    def start_step(self, margin: Margin) -> None:
        self._margin = margin
        self._margins = margin.values(placeholder=0.5)
        self._safe = EProcess(self._margins.shape, start=SAFE_START)
        self._dispersion.start_step()
        self._pair.clear()

    def restart(self) -> None:
        self._relative.restart()
        self._absolute.restart()

    def restart_safe(self) -> None:
        self._safe.restart()

    @property
    def phi(self) -> float:
        return max(float(self._dispersion.phi[0]), self._settings.calibration.phi(self._recent_variance))

    @property
    def _stable_rate(self) -> float:
        prior = _PRIOR_RATE * _PRIOR_REQUESTS
        return min((self._recent_bad + prior) / (self._recent_n + _PRIOR_REQUESTS), 0.98)

    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        """Rates (alternative, null) of the non-inferiority side, per margin.

        The alternative is not below a tenth of the margin: where stable has next to no errors, one error of the
        canary must not cost a hundred requests' worth of evidence.
        """
        rate = self._stable_rate
        null = np.minimum(rate + self._margins, 0.99)
        return np.minimum(np.maximum(rate, 0.1 * self._margins), 0.999 * null), null

    def observe(self, bad_canary: int, n_canary: int, bad_stable: int, n_stable: int, seconds: float) -> None:
        pair = self._pair
        if pair.add(np.array([float(bad_canary)]), n_canary, np.array([float(bad_stable)]), n_stable, seconds):
            if pair.paired:
                self._grow(float(pair.canary[0]), pair.n_canary, float(pair.stable[0]), pair.n_stable, pair.seconds)
            pair.clear()
        self._totals = [
            before + now for before, now in zip(self._totals, (bad_canary, n_canary, bad_stable, n_stable), strict=True)
        ]
        decay = DECAY_PER_S**seconds
        self._recent_bad = self._recent_bad * decay + bad_stable
        self._recent_n = self._recent_n * decay + n_stable
        self._recent_variance *= _VARIANCE_DECAY_PER_S**seconds

    def _grow(self, bad_canary: float, n_canary: float, bad_stable: float, n_stable: float, seconds: float) -> None:
        phi = self.phi
        bad, total = bad_canary + bad_stable, n_canary + n_stable
        if bad:
            tolerance = self._settings.error_tolerance
            self._relative.multiply(
                rate_ratio(bad_canary, n_canary, bad_stable, n_stable, tolerance, self._alternatives) / phi
            )
        self._absolute.multiply(rate_against(bad_canary, n_canary, _FLOOR_RATES, FLOOR) / phi)
        alternative, null = self._bounds()
        self._safe.multiply(rate_against(bad_canary, n_canary, alternative, null) / phi)
        self._dispersion.observe(np.array([bad_canary]), n_canary, np.array([bad_stable]), n_stable, seconds)
        self._recent_variance += n_canary * n_stable * bad / total**2

    def log_harm(self) -> float:
        relative = float(self._relative.log_e())
        if self._totals[2] > 0:
            return relative
        # The lesser of two e-processes is one: stable without a single error makes the relative test a hair trigger.
        return min(relative, float(self._absolute.log_e()))

    def report(self, judged_s: float, log_needed: float, log_safe_needed: float) -> MetricReport:
        bad_c, n_c, bad_s, n_s = self._totals
        row, margin = self._margin.row_at(judged_s), self._margin.at(judged_s)
        phi, log_harm, log_safe = self.phi, self.log_harm(), float(self._safe.log_e()[row])
        missing: int | None = 0
        safe_words = ""
        if margin is not None and log_safe < log_safe_needed:
            alternative, null = self._bounds()
            growth = float(rate_against(self._stable_rate, 1.0, alternative, null)[row]) / phi
            missing = math.ceil((log_safe_needed - log_safe) / growth) if growth > 1e-9 else None
            safe_words = (
                f"errors: {requests_words(missing, 'canary requests')} to show less than {percent_words(margin)} "
                "of requests failing beyond stable's"
            )
        return MetricReport(
            metric=Metric.ERRORS,
            canary_bad=bad_c,
            canary_total=n_c,
            stable_bad=bad_s,
            stable_total=n_s,
            harm_log_e=log_harm,
            harm_log_needed=log_needed,
            suspicion_log_e=log_harm,
            safe_log_e=log_safe,
            safe_log_needed=log_safe_needed,
            margin=margin,
            phi=phi,
            missing_requests=missing,
            harm_words=(
                f"errors: {share_words(bad_c, n_c)} of the canary's requests failed against {share_words(bad_s, n_s)} "
                f"of stable's; {evidence_words(log_harm, log_needed)}"
            ),
            safe_words=safe_words,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "relative": self._relative.log_w.tolist(),
            "absolute": self._absolute.log_w.tolist(),
            "safe": self._safe.log_w.tolist(),
            "dispersion": self._dispersion.to_json(),
            "pair": self._pair.to_json(),
            "totals": list(self._totals),
            "recent": [self._recent_bad, self._recent_n, self._recent_variance],
        }

    def load(self, value: Mapping[str, Any]) -> None:
        self._relative.load(value["relative"])
        self._absolute.load(value["absolute"])
        self._safe.load(value["safe"])
        self._dispersion.load(value["dispersion"])
        self._pair.load(value["pair"])
        self._totals = [float(total) for total in value["totals"]]
        self._recent_bad, self._recent_n, self._recent_variance = (float(part) for part in value["recent"])


def requests_words(missing: int | None, unit: str) -> str:
    """ "about 210 more canary requests"; used by every metric's report."""
    return f"an unknown number of further {unit}" if missing is None else f"about {missing:,} more {unit}"
