"""How long until a verdict, said before a step and during it; and whether that is near the truth."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest

from rollout.judge import (
    Decision,
    Flow,
    Judge,
    JudgeSettings,
    Margins,
    Metric,
    Stage,
    forecast,
    forecast_pairs,
)
from rollout.spec import RolloutSpec
from rollout.spec_parts import ShadowSpec
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
    said = "5 % of 0.5 requests a second is little to decide the step by within about 2 h (latency: a p95 22 % slower"
    assert found.warnings[0].startswith(said)
    assert not forecast(SETTINGS, Stage.EARLY, 1000, Flow(rps=200)).warnings


def test_without_traffic_no_verdict_is_possible() -> None:
    assert forecast(SETTINGS, Stage.EARLY, 1000, Flow(rps=0.0)).warnings == (
        "no verdict is possible: 10 % of 0 requests a second",
    )


def test_a_margin_that_relaxes_is_forecast_at_the_one_that_will_be_shown() -> None:
    """At 20 requests a second 0.25 % takes an hour; the step passes long before, at the margin that it has by then."""
    found = forecast(JudgeSettings(), Stage.EARLY, 1000, Flow(rps=20.0))
    errors = next(row for row in found.rows if row.metric is Metric.ERRORS)
    assert errors.margin == 0.01
    assert errors.prove_s == pytest.approx(480.0)
    assert found.pass_s == pytest.approx(480.0)


def test_latency_is_not_expected_before_it_is_judged() -> None:
    """Not in the warm-up; and a tail means nothing before there are a thousand answers of stable."""
    found = forecast(JudgeSettings(), Stage.EARLY, 1000, Flow(rps=2000.0))
    assert found.pass_s is not None
    assert 180.0 < found.pass_s < 200.0
    slow = {row.name: row for row in forecast(JudgeSettings(), Stage.FINAL, 3000, Flow(rps=2.0)).rows}
    assert slow["latency_p99"].prove_s == pytest.approx(1500.0)


def test_a_regression_that_the_owner_tolerates_is_not_waited_for() -> None:
    settings = JudgeSettings(latency_tolerance=3.0, margins=Margins().with_fixed(errors=0.02, p50=3.0, p99=0))
    found = forecast(settings, Stage.EARLY, 1000, Flow(rps=200.0))
    latency = next(row for row in found.rows if row.metric is Metric.LATENCY)
    assert latency.tolerated
    assert latency.detect_s is None
    assert "a p50 300 % slower is tolerated" in latency.words
    assert not found.warnings
    assert found.detect_s is not None


def test_feedback_that_is_required_and_does_not_come_is_warned_about() -> None:
    settings = replace(SETTINGS, required=frozenset({Metric.ACCURACY}))
    found = forecast(settings, Stage.EARLY, 1000, Flow(rps=200.0))
    assert found.pass_s is None
    assert found.warnings == ("accuracy is required, and no feedback of its kind has come: the step cannot be passed",)


def judged(seconds: int, rps: float = 50) -> Judge:
    judge = Judge(SETTINGS)
    judge.start_step(1000, 0.0, Stage.EARLY)
    for tick in ticks(rps=rps, labels=0.5, seconds=seconds):
        judge.observe(tick, STABLE, CANARY)
    return judge


def test_a_judge_forecasts_from_what_it_has_seen() -> None:
    found = judged(20).forecast()
    assert {row.metric for row in found.rows} == {Metric.ERRORS, Metric.LATENCY, Metric.ACCURACY}
    assert found.to_json()["rows"]
    errors = next(row for row in found.rows if row.metric is Metric.ERRORS)
    whole = of(Metric.ERRORS, rps=50)[1]
    assert errors.prove_s == pytest.approx(whole - 20, rel=0.4)


def test_what_is_shown_takes_no_more_time_and_harm_is_still_foreseen() -> None:
    found = judged(120).forecast()
    errors = next(row for row in found.rows if row.metric is Metric.ERRORS)
    assert errors.prove_s == 0.0
    assert errors.detect_s == pytest.approx(of(Metric.ERRORS, rps=50)[0], rel=1.0)


def test_a_margin_narrower_than_a_bucket_is_seen_too() -> None:
    rows = {row.name: row for row in judged(60, rps=2000).forecast().rows}
    assert rows["latency_p50"].detect_s is not None
    edges, shares = (1000, 2000), (0.5, 0.1)
    assert Flow(rps=1.0, edges_us=edges, exceedance=shares).beyond(0.5, 0.1) == pytest.approx((0.5, 0.46))


def test_a_forecast_changes_nothing() -> None:
    judge = judged(20)
    before = judge.state()
    assert judge.forecast() == judge.forecast()
    assert judge.state() == before


def test_the_traffic_of_a_step_is_that_of_the_step() -> None:
    """A model whose traffic falls to a tenth takes ten times as long, whatever there was before."""
    judge = judged(300, rps=500)
    judge.start_step(3000, 300.0, Stage.FINAL)
    for tick in ticks(rps=50, weight_bp=3000, start=300.0, seconds=60):
        judge.observe(tick, STABLE, CANARY)
    words = judge.forecast(deadline_s=0.0).warnings[0]
    seen = float(words.partition("30 % of ")[2].partition(" requests a second")[0])
    assert seen == pytest.approx(50, rel=0.1)


class TestShadow:
    SPEC = replace(RolloutSpec.default(), shadow=ShadowSpec(requests=1000, max_disagreement=0.02))

    def test_pairs_come_as_fast_as_they_are_mirrored(self) -> None:
        slow, fast = (
            forecast_pairs(self.SPEC.judge_settings(), 1000, Flow(rps=rps, labels=0.5), {}) for rps in (100.0, 1000.0)
        )
        assert slow.pass_s is not None
        assert fast.pass_s == pytest.approx(slow.pass_s / 10)
        assert slow.pass_s >= 1000 / (100.0 * 0.1)
        assert {row.metric for row in slow.rows} == {Metric.PAIRED_ERRORS, Metric.PAIRED_ACCURACY, Metric.AGREEMENT}

    def test_a_candidate_2_points_worse_is_seen_about_when_it_says(self) -> None:
        """The measured median, with three quarters of the errors in common, is 2,250 pairs: docs/evidence.md."""
        found = forecast_pairs(self.SPEC.judge_settings(), 10_000, Flow(rps=1.0, labels=1.0, wrong_rate=0.08), {})
        row = next(row for row in found.rows if row.metric is Metric.PAIRED_ACCURACY)
        assert row.detect_s == pytest.approx(2250, rel=0.4)

    def test_without_traffic_no_verdict_is_possible(self) -> None:
        found = forecast_pairs(self.SPEC.judge_settings(), 1000, Flow(rps=0.0), {})
        assert found.warnings == ("no verdict is possible: 10 % of 0 requests a second, mirrored",)
