"""How long until a verdict: in a step, at a traffic, for a regression of the margin's size and for a healthy canary.

Asked for before a step (a plan, the start of a rollout) and during it (status, metrics). Expected growth of evidence
per second from the very factors that the judge multiplies, so that a step that cannot see what it is to guard against
is known beforehand. Decides nothing. A shadow step's is `rollout.judge.paired_forecast`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from rollout.judge.errors import MATERIAL, RATIO_ASKED_S
from rollout.judge.evalues import rate_against, rate_ratio, two_by_two
from rollout.judge.flow import TAILS, Flow, Standing
from rollout.judge.histogram import DECAY_PER_S
from rollout.judge.latency import UNMEASURABLE_AFTER_S
from rollout.judge.margins import Margin, Stage
from rollout.judge.process import RESTARTS, SAFE_START
from rollout.judge.settings import ALPHA_SHARES, JudgeSettings, Metric
from rollout.judge.verdict import percent_words

PATIENCE_S = 7200.0
"""A verdict that takes longer than this is worth a warning: the default deadline of a step."""
_MIXTURE_NATS = 1.5
"""Price of not knowing the size of the regression beforehand: about this much evidence."""
_LOWEST_LOG_E = math.log((1.0 - SAFE_START) / RESTARTS)
"""However much speaks for a canary, a part of the reserve restarts every minute: evidence of harm begins here."""


@dataclass(frozen=True, slots=True)
class MetricForecast:
    """`detect_s`: expected seconds from now until a regression of `margin` rolls back; `prove_s`: until a canary like
    stable is shown to be within it, which is the margin in force by then. None: never, at this traffic.

    `name`: the metric, with its quantile. `tolerated`: a regression of this size is within the owner's tolerance.
    """

    metric: Metric
    name: str
    margin: float
    detect_s: float | None
    prove_s: float | None
    tolerated: bool
    words: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """`pass_s`: expected seconds until the step may be passed by a canary like stable; `detect_s`: until a regression
    of the margin's size is rolled back, whichever metric has it. None: never at this traffic, or nothing is asked."""

    rows: tuple[MetricForecast, ...]
    pass_s: float | None
    detect_s: float | None
    words: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def forecast(
    settings: JudgeSettings,
    stage: Stage,
    weight_bp: int,
    flow: Flow,
    standing: Standing | None = None,
    *,
    least_s: float = 0.0,
    deadline_s: float = PATIENCE_S,
) -> Forecast:
    """Of a step at `weight_bp` basis points, from where it stands (its beginning). Seconds from now: it takes
    `least_s` in any case, beside the settings' least time, and is to be decided within `deadline_s`."""
    at = standing or Standing()
    share = weight_bp / 10_000
    if flow.rps * share <= 0 or share >= 1:
        traffic = f"no verdict is possible: {_words_of_traffic(flow, weight_bp)}"
        return Forecast((), None, None, traffic, (traffic,))
    step = _Step(settings, stage, share, flow, at)
    rows = tuple(step.rows())
    least_s = max(0.0, least_s, settings.min_step_s - at.step_s)
    return summary(rows, least_s, deadline_s, _words_of_traffic(flow, weight_bp), list(step.missing()))


def summary(
    rows: Sequence[MetricForecast], least_s: float, deadline_s: float, traffic: str, warnings: Sequence[str] = ()
) -> Forecast:
    """Rows as one forecast: the slowest metric decides. `least_s`: seconds that the step takes in any case."""
    proofs = [row.prove_s for row in rows]
    pass_s = None if None in proofs or warnings else max([least_s, *filter(None, proofs)])
    asked = [row for row in rows if not row.tolerated]
    detect_s = None if not asked or any(r.detect_s is None for r in asked) else max(r.detect_s or 0.0 for r in asked)
    slowest = max(rows, key=lambda row: math.inf if row.prove_s is None else row.prove_s, default=None)
    words = "cannot pass at this traffic" if pass_s is None else f"may pass in {time_words(pass_s)}"
    if slowest is not None and (slowest.prove_s is None or slowest.prove_s > least_s):
        words += f" ({slowest.name} takes longest)"
    if asked:
        seen = "would not be seen at this traffic" if detect_s is None else f"rolls back within {time_words(detect_s)}"
        words += f"; a regression of the margin's size {seen}"
    slow = [row for row in rows if _late(row.prove_s, deadline_s) or (_late(row.detect_s, deadline_s) and row in asked)]
    within = f" within {time_words(deadline_s)}" if math.isfinite(deadline_s) else ""
    too_slow = (
        f"{traffic} is little to decide the step by{within} ({'; '.join(row.words for row in slow)}): "
        "a larger share, a mirrored shadow step, a coarser margin or a longer deadline would help"
    )
    return Forecast(tuple(rows), pass_s, detect_s, words, (*warnings, *([too_slow] if slow else [])))


def _late(seconds: float | None, deadline_s: float) -> bool:
    return seconds is None or seconds > deadline_s


@dataclass(frozen=True, slots=True)
class _Step:
    """One step with its traffic. Rates of requests are per second."""

    settings: JudgeSettings
    stage: Stage
    share: float
    flow: Flow
    at: Standing

    @property
    def canary(self) -> float:
        return self.flow.rps * self.share

    @property
    def stable(self) -> float:
        return self.flow.rps * (1.0 - self.share)

    def rows(self) -> Iterator[MetricForecast]:
        margins = getattr(self.settings.margins, self.stage.value)
        found = [self._errors(margins.errors)]
        schedules = (margins.p50, margins.p95, margins.p99)
        found += [self._latency(name, tail, m) for (name, tail), m in zip(TAILS, schedules, strict=True)]
        flow = self.flow
        if flow.labels > 0:
            found.append(self._quality(Metric.ACCURACY, margins.wrong_ratio, flow.labels, flow.wrong_rate))
        if flow.rewards > 0:
            found.append(self._quality(Metric.REWARD, margins.reward_ratio, flow.rewards, flow.lost_rate))
        yield from filter(None, found)

    def missing(self) -> Iterator[str]:
        """What the owner requires and this traffic does not bring."""
        for metric, rate in ((Metric.ACCURACY, self.flow.labels), (Metric.REWARD, self.flow.rewards)):
            if metric in self.settings.required and rate <= 0:
                yield f"{metric.value} is required, and no feedback of its kind has come: the step cannot be passed"

    def _errors(self, schedule: Margin) -> MetricForecast | None:
        settings, flow = self.settings, self.flow
        canary, stable = self.canary * flow.units, self.stable * flow.units
        rate = max(flow.error_rate, 1e-5)
        owned = len(schedule.rows) == 1
        ratio_left_s = 0.0 if owned else max(0.0, RATIO_ASKED_S[self.stage] - self.at.judged_s)

        def prove_s(row: int, margin: float) -> float | None:
            null = min(rate + margin, 0.99)
            growth = float(rate_against(canary * rate, canary, max(rate, 0.1 * margin), null)) / flow.phi
            by_difference = self._shown_s("errors", row, growth)
            if rate < MATERIAL * margin or not ratio_left_s:
                return by_difference
            ratio = 1.0 + margin / rate
            growth = float(rate_ratio(canary * rate, canary, stable * rate, stable, ratio, 1.0)) / flow.phi
            by_ratio = self._shown_s("errors by ratio", row, growth)
            waits_s = ratio_left_s if by_ratio is None else min(by_ratio, ratio_left_s)
            return None if by_difference is None else max(by_difference, waits_s)

        def harm(margin: float) -> float | None:
            bad, tolerance = min(rate + margin, 0.99), settings.error_tolerance
            if bad <= rate * tolerance:
                return None
            return float(rate_ratio(canary * bad, canary, stable * rate, stable, tolerance, bad / rate)) / flow.phi

        when = [prove_s(row, margin or 0.0) for row, (_, margin) in enumerate(schedule.rows)]
        return self._row(Metric.ERRORS, "errors", schedule, when, harm, lambda m: f"{percent_words(m)} more errors")

    def _latency(self, name: str, tail: float, schedule: Margin) -> MetricForecast | None:
        settings, flow = self.settings, self.flow
        label, canary, stable = f"latency_{name}", self.canary, self.stable
        warm_up = settings.warm_up_start_s if self.at.first else settings.warm_up_step_s
        cold_s = max(0.0, warm_up - self.at.step_s)
        # A quantile means something once this many responses of stable are remembered.
        needed, memory_s = 10.0 / tail, -1.0 / math.log(DECAY_PER_S)
        measurable = stable * memory_s > needed
        if measurable:
            cold_s = max(cold_s, -memory_s * math.log1p(-needed / (stable * memory_s)) - self.at.judged_s)

        def prove_s(row: int, margin: float) -> float | None:
            base, later = flow.beyond(tail, margin)
            later = min(later, 0.999 * base)
            growth = float(two_by_two(canary * later, canary, stable * base, stable, later, base))
            shown_s = self._shown_s(label, row, growth) if measurable else None
            return shown_s + cold_s if shown_s else shown_s

        def harm(margin: float) -> float | None:
            if margin <= settings.latency_tolerance:
                return None
            if not measurable:
                return 0.0
            base, _ = flow.beyond(tail, 0.0)
            # Slower by the margin, a canary is beyond the tolerated edge as often as stable is beyond a lower one.
            _, slower = flow.beyond(tail, (1.0 + settings.latency_tolerance) / (1.0 + margin) - 1.0)
            slower = min(slower, 0.995)
            return float(two_by_two(canary * slower, canary, stable * base, stable, slower, base))

        when = [prove_s(row, margin or 0.0) for row, (_, margin) in enumerate(schedule.rows)]
        if schedule.relents and not measurable:
            schedule = Margin(((UNMEASURABLE_AFTER_S, schedule.rows[0][1]), (math.inf, None)))
            when = [None, None]
        return self._row(
            Metric.LATENCY, label, schedule, when, harm, lambda m: f"a {name} {percent_words(m)} slower", cold_s
        )

    def _quality(self, metric: Metric, schedule: Margin, rate: float, wrong: float) -> MetricForecast | None:
        settings, wrong = self.settings, min(max(wrong, 1e-4), 0.9)
        canary, stable = self.canary * rate, self.stable * rate

        def in_force(margin: float) -> float:
            return max(margin, 1.0 + settings.wrong_floor / wrong)

        def prove_s(row: int, margin: float) -> float | None:
            ratio = in_force(margin)
            growth = two_by_two(
                canary * wrong, canary, stable * wrong, stable, wrong / ratio, wrong, thinning=1.0 / ratio
            )
            return self._shown_s(metric.value, row, float(growth))

        def harm(margin: float) -> float | None:
            if in_force(margin) <= settings.wrong_tolerance:
                return None
            bad, tolerated = min(wrong * in_force(margin), 0.98), 1.0 / settings.wrong_tolerance
            return float(two_by_two(canary * bad, canary, stable * wrong, stable, bad, wrong, thinning=tolerated))

        when = [prove_s(row, margin or 2.0) for row, (_, margin) in enumerate(schedule.rows)]
        what = "wrong answers" if metric is Metric.ACCURACY else "lost reward"
        return self._row(metric, metric.value, schedule, when, harm, lambda m: f"{in_force(m):.2f} times the {what}")

    def _shown_s(self, name: str, row: int, growth: float) -> float | None:
        """Seconds until the evidence of safety of one margin is enough, growing as a canary like stable makes it."""
        have = self.at.log_safe.get(name)
        left = -math.log(self.settings.beta) - (math.log(SAFE_START) if have is None else have[row])
        return 0.0 if left <= 0 else seconds_for(left, growth)

    def _row(
        self,
        metric: Metric,
        name: str,
        schedule: Margin,
        when: Sequence[float | None],
        harm: Callable[[float], float | None],
        what: Callable[[float], str],
        cold_s: float = 0.0,
    ) -> MetricForecast | None:
        """`when`: seconds until each margin of the schedule would be shown; the schedule says which is in force.
        `harm`: growth of the evidence when the canary is worse by a margin; None where that is tolerated."""
        margin, prove_s = self._passing(schedule, when)
        given_up = margin is None
        if margin is None:
            margin = next((asked for _, asked in reversed(schedule.rows) if asked is not None), None)
            if margin is None:
                return None
        growth = harm(margin)
        left = harm_needed(self.settings, metric) - max(self.at.log_harm.get(metric, 0.0), _LOWEST_LOG_E)
        detect_s = None if growth is None else seconds_for(max(left, 0.0), growth)
        detect_s = None if detect_s is None else cold_s + detect_s
        tolerated = growth is None
        seen = "is tolerated" if tolerated else f"would be seen in {time_words(detect_s)}"
        shown = _given_up_words(prove_s or 0.0) if given_up else absence_words(prove_s)
        words = f"{metric.value}: {what(margin)} {seen}, {shown}"
        return MetricForecast(metric, name, margin, detect_s, prove_s, tolerated, words)

    def _passing(self, schedule: Margin, when: Sequence[float | None]) -> tuple[float | None, float | None]:
        """The margin in force when it is first shown, and in how many seconds that is."""
        untils = [0.0, *(until - self.at.judged_s for until, _ in schedule.rows[:-1]), math.inf]
        for (begin, end), (_, margin), shown_s in zip(pairwise(untils), schedule.rows, when, strict=True):
            if end <= 0:
                continue
            if margin is None:
                return None, max(begin, 0.0)
            if shown_s is not None and max(begin, shown_s, 0.0) <= end:
                return margin, max(begin, shown_s, 0.0)
        return schedule.rows[-1][1], None


def harm_needed(settings: JudgeSettings, metric: Metric) -> float:
    """Log evidence that rolls back, every metric having data, with the price of the mixture of alternatives."""
    return -math.log(settings.alpha * ALPHA_SHARES[metric] / sum(ALPHA_SHARES.values())) + _MIXTURE_NATS


def seconds_for(log_needed: float, growth: float) -> float | None:
    return log_needed / growth if growth > 1e-9 else None


def time_words(seconds: float | None) -> str:
    if seconds is None:
        return "more time than there is"
    if seconds < 120:
        return f"about {max(seconds, 1):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.0f} h"


def _given_up_words(after_s: float) -> str:
    return (
        f"its absence is asked for no longer than {time_words(after_s)}" if after_s else "its absence is not asked for"
    )


def absence_words(prove_s: float | None) -> str:
    return "its absence is shown" if prove_s == 0.0 else f"its absence shown in {time_words(prove_s)}"


def _words_of_traffic(flow: Flow, weight_bp: int) -> str:
    return f"{weight_bp / 100:g} % of {flow.rps:.3g} requests a second"
