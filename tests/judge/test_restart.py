"""A judge made from a journalled state goes on bit for bit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.judge import Decision, Judge, JudgeSettings, JudgeState, Margins, Stage
from tests.judge.traffic import CANARY, STABLE, Arm, ticks

SETTINGS = JudgeSettings(
    min_step_s=30.0, warm_up_start_s=40.0, warm_up_step_s=20.0, max_error_share=0.2, max_p99_us=400_000
)
STEP_AT = 150
TICKS = [
    *ticks(rps=40, labels=0.5, seed=3, seconds=STEP_AT),
    *ticks(rps=40, labels=0.5, seed=4, seconds=150, start=STEP_AT, weight_bp=3000, canary=Arm(errors=0.004, slow=1.1)),
]


def through_json(judge: Judge) -> Judge:
    return Judge(SETTINGS, JudgeState.from_json(json.loads(json.dumps(judge.state().to_json()))))


def verdicts(restart_at: frozenset[int]) -> list[dict[str, object]]:
    judge = Judge(SETTINGS)
    judge.start_step(1000, 0.0, Stage.EARLY)
    seen = []
    for index, tick in enumerate(TICKS):
        if index == STEP_AT:
            judge.start_step(3000, float(STEP_AT), Stage.FINAL)
        if index in restart_at:
            judge = through_json(judge)
        seen.append(judge.observe(tick, STABLE, CANARY).to_json())
    return seen


WHOLE = verdicts(frozenset())


@settings(max_examples=5, deadline=None)
@given(st.frozensets(st.integers(0, len(TICKS) - 1), min_size=1, max_size=6))
def test_restarting_at_any_tick_changes_nothing(restart_at: frozenset[int]) -> None:
    assert verdicts(restart_at) == WHOLE


def test_restarting_at_every_tick_changes_nothing() -> None:
    assert verdicts(frozenset(range(len(TICKS)))) == WHOLE


def test_the_run_above_is_not_trivial() -> None:
    metrics = {report["metric"] for verdict in WHOLE for report in verdict["metrics"]}  # type: ignore[attr-defined]  # JSON
    assert metrics == {"errors", "latency", "accuracy"}
    assert len({verdict["reason"] for verdict in WHOLE}) > 50


def test_a_state_is_small_and_independent_of_the_judge() -> None:
    judge = Judge(SETTINGS)
    judge.start_step(1000, 0.0, Stage.EARLY)
    for tick in TICKS[:50]:
        judge.observe(tick, STABLE, CANARY)
    before = judge.state()
    copy = JudgeState(before.document)
    for tick in TICKS[50:100]:
        judge.observe(tick, STABLE, CANARY)
    assert before == copy != judge.state()
    assert len(judge.state().document) < 16_000


def test_a_state_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="expected format 3"):
        JudgeState.from_json({"format": 7})


def test_a_state_written_under_other_margins_is_refused() -> None:
    judge = Judge(SETTINGS)
    judge.start_step(1000, 0.0, Stage.EARLY)
    other = JudgeSettings(margins=Margins().with_fixed(errors=0.02), max_error_share=0.2, max_p99_us=400_000)
    with pytest.raises(ValueError, match="settings differ"):
        Judge(other, judge.state())


def test_a_state_from_before_the_first_step_can_be_continued() -> None:
    judge = Judge(SETTINGS, Judge(SETTINGS).state())
    with pytest.raises(RuntimeError, match="before start_step"):
        judge.observe(TICKS[0], STABLE, CANARY)
    judge.start_step(1000, 0.0, Stage.EARLY)
    assert judge.observe(TICKS[0], STABLE, CANARY).decision is Decision.HOLD
