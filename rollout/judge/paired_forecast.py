"""How long a shadow step takes: until enough pairs are compared and everything asked is shown, and until harm is seen.

The same question as `rollout.judge.forecast`, of mirrored pairs. What two versions have in common is not known
beforehand; for labels it is assumed as it is between a model and its next training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from rollout.judge.evalues import rate_against
from rollout.judge.flow import Flow
from rollout.judge.forecast import (
    PATIENCE_S,
    Forecast,
    MetricForecast,
    absence_words,
    seconds_for,
    summary,
    time_words,
)
from rollout.judge.paired import SAFE_ERRORS, SAFE_WRONG, STAKES
from rollout.judge.paired_report import log_needed
from rollout.judge.process import SAFE_START
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import MetricReport, percent_words

SHARED_ERRORS = 0.75
"""Assumed part of stable's wrong answers that a candidate gives too."""
_MIXTURE_NATS = 1.5
"""Price of not knowing the size of the regression beforehand, as for split traffic."""


def forecast_pairs(
    settings: JudgeSettings,
    share_bp: int,
    flow: Flow,
    reports: Mapping[Metric, MetricReport],
    *,
    deadline_s: float = PATIENCE_S,
) -> Forecast:
    """Of a shadow step that copies `share_bp` basis points of the requests, from where its `reports` say it stands."""
    pairs = flow.rps * share_bp / 10_000
    traffic = f"{share_bp / 100:g} % of {flow.rps:.3g} requests a second, mirrored,"
    if pairs <= 0:
        words = f"no verdict is possible: {traffic.rstrip(',')}"
        return Forecast((), None, None, words, (words,))
    compared = reports[Metric.PAIRED_ERRORS].canary_total if Metric.PAIRED_ERRORS in reports else 0.0
    least_s = max(0.0, settings.shadow_pairs - compared) / pairs
    return summary(tuple(_rows(settings, pairs, flow, reports)), least_s, deadline_s, traffic)


def _rows(
    settings: JudgeSettings, pairs: float, flow: Flow, reports: Mapping[Metric, MetricReport]
) -> Iterator[MetricForecast]:
    rate, tolerance = min(flow.error_rate, SAFE_ERRORS / 10.0), settings.error_tolerance
    prove = rate_against(pairs * rate, pairs, SAFE_ERRORS / 10.0, SAFE_ERRORS)
    harm = _sign(pairs * (SAFE_ERRORS + rate), pairs * rate, tolerance)
    what = f"{percent_words(SAFE_ERRORS)} of pairs failing on the candidate alone"
    yield _row(settings, reports, Metric.PAIRED_ERRORS, SAFE_ERRORS, what, float(prove), harm)
    if flow.labels > 0:
        labelled, apart = pairs * flow.labels, (1.0 - SHARED_ERRORS) * flow.wrong_rate
        growth = apart * np.log1p(STAKES * (SAFE_WRONG - 1.0)) + apart * np.log1p(STAKES * (SAFE_WRONG + 1.0))
        growth = growth + (1.0 - 2.0 * apart) * np.log1p(STAKES * SAFE_WRONG)
        harm = _sign(labelled * (SAFE_WRONG + apart), labelled * apart, settings.wrong_tolerance)
        what = f"{percent_words(SAFE_WRONG)} more wrong answers"
        prove = labelled * growth.max()
        yield _row(settings, reports, Metric.PAIRED_ACCURACY, SAFE_WRONG, what, float(prove), harm)
    limit = settings.max_disagreement
    if limit is not None:
        prove = rate_against(pairs * limit / 2.0, pairs, limit / 2.0, limit)
        beyond = min(2.0 * limit, 0.99)
        harm = float(rate_against(pairs * beyond, pairs, beyond, limit))
        what = f"{percent_words(beyond)} of answers differing"
        yield _row(settings, reports, Metric.AGREEMENT, limit, what, float(prove), harm)


def _sign(worse: float, better: float, tolerance: float) -> float:
    """Growth per second of the test on the pairs that differ, which the candidate loses at most `tolerance` to 1."""
    null = tolerance / (1.0 + tolerance)
    alternative = min(worse / (worse + better), 0.98)
    return float(rate_against(worse, worse + better, alternative, null)) if alternative > null else 0.0


def _row(
    settings: JudgeSettings,
    reports: Mapping[Metric, MetricReport],
    metric: Metric,
    margin: float,
    what: str,
    prove: float,
    harm: float,
) -> MetricForecast:
    report = reports.get(metric)
    have_safe, have_harm = (math.log(SAFE_START), 0.0) if report is None else (report.safe_log_e, report.harm_log_e)
    left = -math.log(settings.beta) - have_safe
    prove_s = 0.0 if left <= 0 else seconds_for(left, prove)
    detect_s = seconds_for(max(0.0, log_needed(settings) + _MIXTURE_NATS - max(have_harm, 0.0)), harm)
    words = f"{metric.value}: {what} would be seen in {time_words(detect_s)}, {absence_words(prove_s)}"
    return MetricForecast(metric, metric.value, margin, detect_s, prove_s, False, words)
