"""How long until a verdict: in a step, at a traffic, for a regression of the margin's size and for a healthy canary.

Asked for before a step (the spec's check, a plan) and during it. Expected growth of evidence per second from the very
factors that the judge multiplies, so that a step that cannot see what it is to guard against is known beforehand.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rollout.judge.evalues import rate_against, rate_ratio, two_by_two
from rollout.judge.margins import Margin, Stage
from rollout.judge.settings import ALPHA_SHARES, JudgeSettings, Metric
from rollout.judge.verdict import percent_words

if TYPE_CHECKING:
    from rollout.judge.panel import Panel

PATIENCE_S = 7200.0
"""A verdict that takes longer than this is worth a warning: the default deadline of a step."""
_MIXTURE_NATS = 1.5
"""Price of not knowing the size of the regression beforehand: about this much evidence."""
_TAILS = ((0.5, "p50"), (0.05, "p95"), (0.01, "p99"))


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic of a model and what stable is like. Rates are shares; `labels` are labels per answer.

    `shifted`: for a margin on a latency quantile, how many times rarer stable's own responses beyond "quantile x (1 +
    margin)" are than beyond the quantile; 0.6 for 20 % is usual for service times.
    """

    rps: float
    error_rate: float = 0.001
    labels: float = 0.0
    wrong_rate: float = 0.1
    shifted: float = 0.6
    phi: float = 1.0

    @classmethod
    def of(cls, panel: Panel) -> Flow:
        """What the first rollout of a panel has seen in its present step."""
        _, n_canary, bad_stable, n_stable = panel.errors.totals[0].tolist()
        _, labels_canary, wrong, labels = panel.accuracy.totals[0].tolist()
        seconds, requests = max(float(panel.judged_s[0]), 1.0), n_canary + n_stable
        return cls(
            rps=requests / seconds,
            error_rate=(bad_stable + 0.02) / (n_stable + 20.0),
            labels=(labels + labels_canary) / max(requests, 1.0),
            wrong_rate=(wrong + 0.5) / (labels + 5.0),
            phi=panel.errors.phi_now(),
        )


@dataclass(frozen=True, slots=True)
class MetricForecast:
    """`detect_s`: expected seconds until a regression of `margin` rolls back; `prove_s`: until a canary like stable is
    shown to be within it. None: never, at this traffic."""

    metric: Metric
    margin: float
    detect_s: float | None
    prove_s: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Forecast:
    rows: tuple[MetricForecast, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def forecast(settings: JudgeSettings, stage: Stage, weight_bp: int, flow: Flow) -> Forecast:
    """Of a step at `weight_bp` basis points; margins as they are when the step begins."""
    share = weight_bp / 10_000
    canary, stable = flow.rps * share, flow.rps * (1.0 - share)
    margins = getattr(settings.margins, stage.value)
    rows = []
    if canary <= 0 or stable <= 0:
        return Forecast((), (f"no verdict is possible: {_words_of_traffic(flow, weight_bp)}",))
    margin = _first(margins.errors)
    if margin is not None:
        rows.append(_errors(settings, margin, canary, stable, flow))
    for (tail, name), schedule in zip(_TAILS, (margins.p50, margins.p95, margins.p99), strict=True):
        margin = _first(schedule)
        if margin is not None:
            rows.append(_latency(settings, name, tail, margin, canary, stable, flow))
    margin = _first(margins.wrong_ratio)
    if margin is not None and flow.labels > 0:
        rows.append(_accuracy(settings, margin, canary * flow.labels, stable * flow.labels, flow))
    slow = [row for row in rows if row.prove_s is None or row.prove_s > PATIENCE_S]
    warnings = [
        f"{row.words}; {_words_of_traffic(flow, weight_bp)} is little for it: a larger share, a mirrored shadow step, "
        "a coarser margin or a longer deadline would help"
        for row in slow
    ]
    return Forecast(tuple(rows), tuple(warnings))


def _first(schedule: Margin) -> float | None:
    return schedule.rows[0][1]


def _log_needed(settings: JudgeSettings, metric: Metric) -> float:
    return -math.log(settings.alpha * ALPHA_SHARES[metric] / sum(ALPHA_SHARES.values())) + _MIXTURE_NATS


def _seconds(log_needed: float, growth: float) -> float | None:
    return log_needed / growth if growth > 1e-9 else None


def _errors(settings: JudgeSettings, margin: float, canary: float, stable: float, flow: Flow) -> MetricForecast:
    rate = max(flow.error_rate, 1e-5)
    bad = min(rate + margin, 0.99)
    ratio = max(bad / rate, settings.error_tolerance * 1.01)
    harm = float(rate_ratio(canary * bad, canary, stable * rate, stable, settings.error_tolerance, ratio)) / flow.phi
    alternative = max(rate, 0.1 * margin)
    safe = float(rate_against(canary * rate, canary, alternative, bad)) / flow.phi
    name = f"{percent_words(margin)} more errors"
    return _row(settings, Metric.ERRORS, margin, name, harm, safe)


def _latency(
    settings: JudgeSettings, name: str, tail: float, margin: float, canary: float, stable: float, flow: Flow
) -> MetricForecast:
    rarer = tail * flow.shifted ** (math.log1p(margin) / math.log1p(0.2))
    tolerated = tail * flow.shifted ** (math.log1p(settings.latency_tolerance) / math.log1p(0.2))
    slower = min(tail * tail / rarer * tolerated / tail, 0.995)
    harm = float(two_by_two(canary * slower, canary, stable * tail, stable, slower, tail)) if slower > tail else 0.0
    safe = float(two_by_two(canary * rarer, canary, stable * tail, stable, rarer, tail))
    return _row(settings, Metric.LATENCY, margin, f"a {name} {percent_words(margin)} slower", harm, safe)


def _accuracy(settings: JudgeSettings, ratio: float, canary: float, stable: float, flow: Flow) -> MetricForecast:
    wrong = min(max(flow.wrong_rate, 1e-4), 0.9)
    ratio = max(ratio, 1.0 + settings.wrong_floor / wrong)
    bad = min(wrong * ratio, 0.98)
    tolerated = 1.0 / settings.wrong_tolerance
    harm = float(two_by_two(canary * bad, canary, stable * wrong, stable, bad, wrong, thinning=tolerated))
    safe = float(two_by_two(canary * wrong, canary, stable * wrong, stable, wrong / ratio, wrong, thinning=1.0 / ratio))
    return _row(settings, Metric.ACCURACY, ratio, f"{ratio:.2f} times the wrong answers", harm, safe)


def _row(settings: JudgeSettings, metric: Metric, margin: float, what: str, harm: float, safe: float) -> MetricForecast:
    detect = _seconds(_log_needed(settings, metric), harm)
    prove = _seconds(-math.log(settings.beta), safe)
    words = f"{metric.value}: {what} would be seen in {_time(detect)}, their absence shown in {_time(prove)}"
    return MetricForecast(metric, margin, detect, prove, words)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "more time than there is"
    if seconds < 120:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.0f} h"


def _words_of_traffic(flow: Flow, weight_bp: int) -> str:
    return f"{weight_bp / 100:g} % of {flow.rps:g} requests a second"
