"""How long until a verdict, said before a step and during it; and whether that is near the truth."""

from __future__ import annotations

from statistics import median

import pytest

from rollout.judge import Decision, Flow, Judge, JudgeSettings, Margins, Metric, Stage, forecast
from tests.judge.traffic import CANARY, STABLE, Arm, judge_until_decided, ticks

SETTINGS = JudgeSettings(margins=Margins().with_fixed(errors=0.02, p50=0.2), min_step_s=0.0, warm_up_start_s=0.0)


def of(metric: Metric, *, rps: float, weight_bp: int = 1000, labels: float = 0.0) -> tuple[float, float]:
    found = forecast(SETTINGS, Stage.EARLY, weight_bp, Flow(rps=rps, labels=labels))
    row = next(row for row in found.rows if row.metric is metric)
    assert row.detect_s is not None
    assert row.prove_s is not None
    return row.detect_s, row.prove_s


def test_ten_times_the_traffic_takes_a_tenth_of_the_time() -> None:
    for slow, fast in zip(of(Metric.ERRORS, rps=10), of(Metric.ERRORS, rps=100), strict=True):
        assert slow / fast == pytest.approx(10.0)


def test_errors_are_seen_about_when_it_says() -> None:
    seconds = []
    for seed in range(9):
        settings = JudgeSettings(guardrail=False)
        seen, verdict = judge_until_decided(settings, rps=50, canary=Arm(errors=0.021), seed=seed, seconds=900)
        assert verdict.decision is Decision.ROLL_BACK
        seconds.append(seen)
    assert of(Metric.ERRORS, rps=50)[0] == pytest.approx(median(seconds), rel=0.6)


def test_a_step_that_cannot_see_its_margin_is_warned_about_with_what_would_help() -> None:
    found = forecast(JudgeSettings(), Stage.FINAL, 500, Flow(rps=0.5, labels=0.1))
    assert found.warnings
    assert all("a larger share, a mirrored shadow step" in warning for warning in found.warnings)
    assert "5 % of 0.5 requests a second is little for it" in found.warnings[0]
    assert not forecast(SETTINGS, Stage.EARLY, 1000, Flow(rps=200)).warnings


def test_without_traffic_no_verdict_is_possible() -> None:
    assert forecast(SETTINGS, Stage.EARLY, 1000, Flow(rps=0.0)).warnings == (
        "no verdict is possible: 10 % of 0 requests a second",
    )


def test_a_judge_forecasts_from_what_it_has_seen() -> None:
    judge = Judge(SETTINGS)
    judge.start_step(1000, 0.0, Stage.EARLY)
    for tick in ticks(rps=50, labels=0.5, seconds=120):
        judge.observe(tick, STABLE, CANARY)
    found = judge.forecast()
    assert {row.metric for row in found.rows} == {Metric.ERRORS, Metric.LATENCY, Metric.ACCURACY}
    assert found.to_json()["rows"]
    errors = next(row for row in found.rows if row.metric is Metric.ERRORS)
    assert errors.prove_s == pytest.approx(of(Metric.ERRORS, rps=50)[1], rel=0.6)
