"""Sample ratio, label rates, drift and callers: what is odd about a comparison holds, or does as the owner said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rollout.judge import Decision, DriftAction, Judge, JudgeSettings, Stage, Verdict
from rollout.judge.dispersion import Calibration
from rollout.ports import ArmCounts, Tick
from tests.judge.traffic import CANARY, STABLE, Arm, ticks

QUICK = JudgeSettings(min_step_s=5.0, warm_up_start_s=0.0)
CLASSES = ("cat", "dog", "owl")


def verdicts(
    change: Callable[[Tick], Tick], settings: JudgeSettings = QUICK, weight_bp: int | None = None, **traffic: object
) -> list[Verdict]:
    judge = Judge(settings)
    judge.start_step(1000, 0.0, Stage.EARLY)
    played = ticks(**{"rps": 400, "seconds": 200, **traffic})  # type: ignore[arg-type]  # passed through
    return [judge.observe(change(tick), STABLE, CANARY, weight_bp) for tick in played]


class TestSampleRatio:
    def test_the_configured_share_is_no_reason_to_hold(self) -> None:
        assert not any("data plane" in verdict.reason for verdict in verdicts(lambda tick: tick))

    @pytest.mark.parametrize("delivered_bp", [500, 2000])
    def test_another_share_holds_and_says_which(self, delivered_bp: int) -> None:
        judge = Judge(QUICK)
        judge.start_step(1000, 0.0, Stage.EARLY)
        last = [judge.observe(t, STABLE, CANARY) for t in ticks(rps=200, weight_bp=delivered_bp, seconds=120)][-1]
        assert last.decision is Decision.HOLD
        assert last.reason.startswith("the data plane sends ")
        assert "configured are 10 %" in last.reason

    def test_it_recovers_when_the_share_does(self) -> None:
        judge = Judge(QUICK)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for tick in ticks(rps=200, weight_bp=2000, seconds=60):
            judge.observe(tick, STABLE, CANARY)
        later = [judge.observe(t, STABLE, CANARY) for t in ticks(rps=200, seconds=120, start=60)]
        assert "data plane" not in later[-1].reason

    def test_a_withheld_weight_is_not_compared(self) -> None:
        judge = Judge(QUICK)
        judge.start_step(1000, 0.0, Stage.EARLY)
        reasons = {judge.observe(t, STABLE, CANARY, 0).reason for t in ticks(rps=200, weight_bp=1, seconds=60)}
        assert not any("data plane" in reason for reason in reasons)


def lose_right_labels(tick: Tick) -> Tick:
    """Seven in ten labels of the canary's right answers never arrive."""
    arm = tick.arms[CANARY]
    left = round(0.3 * (arm.labelled - arm.wrong))
    return replace(tick, arms={**tick.arms, CANARY: replace(arm, labelled=left + arm.wrong)})


class TestLabelRates:
    def test_labels_lost_for_one_version_neither_advance_nor_roll_back(self) -> None:
        found = verdicts(lose_right_labels, labels=0.5, seconds=400)
        settled = found[60:]
        assert {verdict.decision for verdict in settled} == {Decision.HOLD}
        assert settled[-1].reason.startswith("labels come for ")
        assert "no evidence" in settled[-1].reason

    def test_the_same_answers_with_all_labels_pass(self) -> None:
        assert Decision.ADVANCE in {v.decision for v in verdicts(lambda tick: tick, labels=0.5, seconds=400)}

    def test_a_version_that_is_wrong_is_still_rolled_back(self) -> None:
        found = verdicts(lambda tick: tick, labels=0.5, canary=Arm(wrong=0.5))
        assert Decision.ROLL_BACK in {verdict.decision for verdict in found}


def with_classes(canary_shares: list[float]) -> Callable[[Tick], Tick]:
    rng = np.random.default_rng(3)

    def predicted(tick: Tick) -> Tick:
        shares = {STABLE: [0.6, 0.3, 0.1], CANARY: canary_shares}
        arms = {
            version: replace(arm, predicted=tuple(rng.multinomial(arm.ok, shares[version]).tolist()))
            for version, arm in tick.arms.items()
        }
        return replace(tick, arms=arms, classes=CLASSES)

    return predicted


class TestDrift:
    def test_a_large_change_of_classes_waits_for_a_person(self) -> None:
        found = verdicts(with_classes([0.3, 0.3, 0.4]))
        assert found[-1].decision is Decision.HOLD
        assert found[-1].reason.startswith("drift: the candidate predicts ")
        assert "'owl'" in found[-1].reason or "'cat'" in found[-1].reason

    def test_where_it_is_forbidden_it_rolls_back(self) -> None:
        settings = replace(QUICK, drift=DriftAction.ROLL_BACK)
        found = verdicts(with_classes([0.3, 0.3, 0.4]), settings)
        assert next(v for v in found if v.decision is not Decision.HOLD).decision is Decision.ROLL_BACK

    def test_where_it_is_ignored_it_does_nothing(self) -> None:
        found = verdicts(with_classes([0.3, 0.3, 0.4]), replace(QUICK, drift=DriftAction.IGNORE))
        assert Decision.ADVANCE in {verdict.decision for verdict in found}

    @pytest.mark.parametrize("action", list(DriftAction))
    def test_the_same_classes_pass(self, action: DriftAction) -> None:
        found = verdicts(with_classes([0.6, 0.3, 0.1]), replace(QUICK, drift=action))
        decisions = {verdict.decision for verdict in found}
        assert Decision.ADVANCE in decisions
        assert Decision.ROLL_BACK not in decisions

    def test_a_small_change_is_significant_and_no_reason(self) -> None:
        found = verdicts(with_classes([0.57, 0.32, 0.11]), rps=2000)
        assert not any("drift" in verdict.reason for verdict in found)


class TestCallers:
    def test_one_bad_caller_of_sticky_traffic_is_one_failure(self) -> None:
        """One caller in ten of the canary's fails for ever; counted by request that is a failing version."""

        def judged(by_caller: bool) -> set[Decision]:
            judge = Judge(QUICK)
            judge.start_step(1000, 0.0, Stage.EARLY)
            seen = set()
            for at in range(1, 200):
                canary, stable = ArmCounts(ok=18, bad=2), ArmCounts(ok=180)
                if by_caller:
                    canary = replace(canary, callers=10 if at == 1 else 9, bad_callers=int(at == 1))
                    stable = replace(stable, callers=90)
                arms = {CANARY: canary, STABLE: stable}
                seen.add(judge.observe(Tick(at=float(at), seconds=1.0, arms=arms), STABLE, CANARY).decision)
            return seen

        assert Decision.ROLL_BACK in judged(by_caller=False)
        assert Decision.ROLL_BACK not in judged(by_caller=True)

    def test_a_version_that_fails_its_callers_is_rolled_back(self) -> None:
        judge = Judge(QUICK)
        judge.start_step(1000, 0.0, Stage.EARLY)
        seen = []
        for at in range(1, 10):
            arms = {
                CANARY: ArmCounts(ok=10, bad=10, callers=12, bad_callers=4),
                STABLE: ArmCounts(ok=180, callers=90),
            }
            seen.append(judge.observe(Tick(at=float(at), seconds=1.0, arms=arms), STABLE, CANARY).decision)
        assert Decision.ROLL_BACK in seen

    def test_a_tick_without_any_caller_at_risk_is_judged_by_caller_all_the_same(self) -> None:
        """The canary's first requests come from a client that was broken before."""
        arms = {CANARY: ArmCounts(bad=20), STABLE: ArmCounts(ok=180, callers=90)}
        decisions = {}
        for by_caller in (False, True):
            judge = Judge(QUICK)
            judge.start_step(1000, 0.0, Stage.EARLY)
            verdicts = [
                judge.observe(Tick(float(at), 1.0, arms, by_caller=by_caller), STABLE, CANARY) for at in range(1, 5)
            ]
            decisions[by_caller] = {verdict.decision for verdict in verdicts}
        assert Decision.ROLL_BACK in decisions[False]
        assert decisions[True] == {Decision.HOLD}

    def test_a_tick_whose_callers_are_missing_is_judged_by_request_and_says_so(self) -> None:
        judge = Judge(QUICK)
        judge.start_step(1000, 0.0, Stage.EARLY)
        counted = {CANARY: ArmCounts(ok=20, callers=18), STABLE: ArmCounts(ok=180, callers=90)}
        first = judge.observe(Tick(1.0, 1.0, counted, by_caller=True), STABLE, CANARY)
        assert "caller" not in first.reason.replace("caller seconds", "")
        failing = {CANARY: ArmCounts(bad=20), STABLE: ArmCounts(ok=180)}
        verdicts = [
            judge.observe(Tick(float(at), 1.0, failing, callers_missing="the log is late"), STABLE, CANARY)
            for at in (2, 3)
        ]
        assert verdicts[-1].decision is Decision.ROLL_BACK
        assert verdicts[-1].reason.endswith("; judged by request, since callers could not be counted (the log is late)")
        assert "requests failed" in verdicts[-1].reason or "guardrail" in verdicts[-1].reason

    def test_noise_by_caller_is_allowed_for_in_ticks_that_are_judged_by_caller(self) -> None:
        settings = replace(QUICK, calibration=Calibration(scale=4.0), caller_calibration=Calibration(scale=2.0))
        arms = {CANARY: ArmCounts(ok=20, callers=18), STABLE: ArmCounts(ok=180, callers=90)}
        found = {}
        for tick in (Tick(1.0, 1.0, arms, by_caller=True), Tick(1.0, 1.0, arms, callers_missing="late")):
            judge = Judge(settings)
            judge.start_step(1000, 0.0, Stage.EARLY)
            judge.observe(Tick(0.5, 0.5, arms, by_caller=True), STABLE, CANARY)
            found[tick.by_caller] = judge.observe(tick, STABLE, CANARY).metrics[0].phi
        assert found == {True: 2.0, False: 4.0}
        again, then = Judge(settings, judge.state()), Tick(2.0, 1.0, arms, by_caller=True)
        assert again.observe(then, STABLE, CANARY) == judge.observe(then, STABLE, CANARY)
