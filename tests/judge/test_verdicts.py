"""What the judge decides on whole traffic, and how it says so."""

from __future__ import annotations

from itertools import count

import pytest

from rollout.judge import Decision, Judge, JudgeSettings, Margins, Metric, Stage
from rollout.ports import ArmCounts, Tick
from tests.judge.traffic import CANARY, STABLE, Arm, judge_until_decided, ticks

DEFAULT = JudgeSettings()
DEMO = JudgeSettings(
    margins=Margins().with_fixed(errors=0.02, p50=0.48, wrong_ratio=1.5),
    min_step_s=10.0,
    warm_up_start_s=0.0,
    warm_up_step_s=0.0,
    wrong_floor=0.02,
)
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (2, 3, 4))]
"""How often a verdict is right is for the bench to say; here a rule that is broken shows at any seed."""


def simple(bad_canary: int, n_canary: int, bad_stable: int, n_stable: int) -> dict[int, ArmCounts]:
    return {
        CANARY: ArmCounts(ok=n_canary - bad_canary, bad=bad_canary),
        STABLE: ArmCounts(ok=n_stable - bad_stable, bad=bad_stable),
    }


class TestRollingBack:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize(
        ("errors", "rps", "within_s"),
        [(1.0, 2, 90), (1.0, 20, 15), (1.0, 500, 3), (0.5, 2, 120), (0.5, 20, 25), (0.05, 20, 240), (0.05, 200, 30)],
    )
    def test_a_failing_canary_is_rolled_back_quickly(self, seed: int, errors: float, rps: float, within_s: int) -> None:
        seconds, verdict = judge_until_decided(DEFAULT, rps=rps, canary=Arm(errors=errors), seed=seed)
        assert verdict.decision is Decision.ROLL_BACK
        assert seconds <= within_s
        assert verdict.reason.startswith(("errors: ", "guardrail: "))

    def test_a_slower_median_is_rolled_back_for_latency(self) -> None:
        _, verdict = judge_until_decided(DEFAULT, rps=400, canary=Arm(slow=1.2), stage=Stage.FINAL)
        assert verdict.decision is Decision.ROLL_BACK
        assert verdict.reason.startswith("latency: ")

    def test_a_canary_twice_as_slow_is_rolled_back_while_still_warming_up(self) -> None:
        seconds, verdict = judge_until_decided(DEFAULT, rps=200, canary=Arm(slow=3.0))
        assert verdict.decision is Decision.ROLL_BACK
        assert seconds < DEFAULT.warm_up_start_s

    def test_wrong_answers_are_rolled_back_for_accuracy(self) -> None:
        _, verdict = judge_until_decided(DEFAULT, rps=100, canary=Arm(wrong=0.9), labels=0.3)
        assert verdict.decision is Decision.ROLL_BACK
        assert verdict.reason.startswith("accuracy: ")
        assert " wrong against " in verdict.reason

    def test_lost_reward_is_rolled_back(self) -> None:
        judge = Judge(DEFAULT)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for at in count(1):
            arms = {
                STABLE: ArmCounts(ok=90, reward_count=45, reward_sum=45 * 0.8),
                CANARY: ArmCounts(ok=10, reward_count=5, reward_sum=5 * 0.3),
            }
            verdict = judge.observe(Tick(at=float(at), seconds=1.0, arms=arms), STABLE, CANARY)
            if verdict.decision is not Decision.HOLD:
                break
        assert verdict.decision is Decision.ROLL_BACK
        assert verdict.reason.startswith("reward: ")

    def test_a_canary_that_breaks_after_a_healthy_while_is_caught(self) -> None:
        settings = JudgeSettings(min_step_s=100_000.0)
        judge = Judge(settings)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for tick in ticks(rps=100, seconds=600):
            assert judge.observe(tick, STABLE, CANARY).decision is Decision.HOLD
        broken = ticks(rps=100, canary=Arm(errors=0.05), seconds=60, start=600)
        assert Decision.ROLL_BACK in {judge.observe(tick, STABLE, CANARY).decision for tick in broken}

    def test_the_guardrail_can_be_switched_off(self) -> None:
        settings = JudgeSettings(guardrail=False)
        seconds, verdict = judge_until_decided(settings, rps=5, canary=Arm(errors=1.0))
        assert verdict.decision is Decision.ROLL_BACK
        assert verdict.reason.startswith("errors: ")
        assert seconds > judge_until_decided(DEFAULT, rps=5, canary=Arm(errors=1.0))[0]


class TestAdvancing:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("canary", [Arm(), Arm(errors=0.0, slow=0.8, wrong=0.04)], ids=["identical", "better"])
    def test_a_healthy_canary_passes_after_warm_up(self, seed: int, canary: Arm) -> None:
        seconds, verdict = judge_until_decided(DEFAULT, rps=400, canary=canary, labels=0.5, seed=seed)
        assert verdict.decision is Decision.ADVANCE
        assert DEFAULT.warm_up_start_s <= seconds < 400
        assert all(report.safe and not report.harmful for report in verdict.metrics)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize(
        ("stable", "canary"),
        [(Arm(wrong=0.11), Arm(wrong=0.03)), (Arm(wrong=0.11), Arm(wrong=0.11)), (Arm(wrong=0.03), Arm(wrong=0.03))],
        ids=["v1 to v2", "like v1", "like v2"],
    )
    def test_the_demos_pace_passes_ten_percent_in_about_half_a_minute(
        self, seed: int, stable: Arm, canary: Arm
    ) -> None:
        seconds, verdict = judge_until_decided(DEMO, rps=250, stable=stable, canary=canary, labels=1.0, seed=seed)
        assert verdict.decision is Decision.ADVANCE
        assert 10 <= seconds <= 100

    @pytest.mark.parametrize("canary", [Arm(wrong=0.9), Arm(errors=0.15)], ids=["v3", "v4"])
    def test_the_demos_bad_versions_are_rolled_back(self, canary: Arm) -> None:
        seconds, verdict = judge_until_decided(DEMO, rps=250, canary=canary, labels=1.0)
        assert verdict.decision is Decision.ROLL_BACK
        assert seconds <= 20

    def test_a_model_that_never_fails_is_not_kept_waiting_for_errors(self) -> None:
        seconds, verdict = judge_until_decided(DEFAULT, rps=400, stable=Arm(errors=0.0), canary=Arm(errors=0.0))
        assert verdict.decision is Decision.ADVANCE
        assert seconds < 300

    def test_what_was_shown_is_shown_anew_in_the_next_step(self) -> None:
        judge = Judge(DEMO)
        seconds, verdict = judge_until_decided(DEMO, judge=judge, rps=250)
        assert verdict.decision is Decision.ADVANCE
        judge.start_step(3000, float(seconds), Stage.FINAL)
        tick = next(ticks(rps=250, weight_bp=3000, start=float(seconds)))
        verdict = judge.observe(tick, STABLE, CANARY)
        assert verdict.decision is Decision.HOLD
        assert all((report.missing_requests or 0) > 0 for report in verdict.metrics)

    def test_a_bake_passes_with_a_small_holdback(self) -> None:
        seconds, verdict = judge_until_decided(DEFAULT, rps=50, weight_bp=9500, stage=Stage.BAKE)
        assert verdict.decision is Decision.ADVANCE
        assert seconds < 600


class TestStages:
    def test_the_last_of_several_steps_is_a_bake_whatever_its_weight(self) -> None:
        assert [Stage.of(step, 3) for step in range(3)] == [Stage.EARLY, Stage.FINAL, Stage.BAKE]
        assert Stage.of(0, 1) is Stage.FINAL
        assert [Stage.of(step, 2) for step in range(2)] == [Stage.FINAL, Stage.BAKE]

    def test_a_bake_with_a_large_holdback_does_not_wait_for_the_tail_again(self) -> None:
        judge = Judge(DEFAULT)
        judge_until_decided(DEFAULT, judge=judge, rps=400, weight_bp=3000, stage=Stage.FINAL, seconds=300)
        judge.start_step(8500, 3600.0, Stage.BAKE)
        baked = ticks(rps=100, weight_bp=8500, start=3600.0, seconds=200)
        assert Decision.ADVANCE in {judge.observe(tick, STABLE, CANARY).decision for tick in baked}

    def test_what_is_missing_is_told_at_the_steps_own_split(self) -> None:
        """Told at the split of the whole rollout, it grew for minutes after a change from 10 to 85 %."""
        judge = Judge(DEFAULT)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for tick in ticks(rps=100, seconds=400):
            judge.observe(tick, STABLE, CANARY)
        judge.start_step(8500, 400.0, Stage.FINAL)
        missing = []
        for tick in ticks(rps=100, weight_bp=8500, seconds=500, start=400.0, seed=8):
            report = judge.observe(tick, STABLE, CANARY).metrics[1]
            missing.append(report.missing_requests)
        settled = [count for count in missing[120:] if count]
        assert settled
        assert max(settled) < 2 * settled[0]


class TestHolding:
    def test_no_labels_neither_block_nor_count(self) -> None:
        _, verdict = judge_until_decided(DEFAULT, rps=400)
        assert {report.metric for report in verdict.metrics} == {Metric.ERRORS, Metric.LATENCY}
        assert verdict.decision is Decision.ADVANCE

    def test_a_required_metric_without_data_blocks(self) -> None:
        settings = JudgeSettings(required=frozenset({Metric.ACCURACY}))
        _, verdict = judge_until_decided(settings, rps=400, seconds=600)
        assert verdict.decision is Decision.HOLD
        assert "accuracy, which this rollout requires" in verdict.reason

    def test_the_reason_says_how_many_requests_are_missing(self) -> None:
        judge = Judge(DEFAULT)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for tick in ticks(rps=10, seconds=60):
            verdict = judge.observe(tick, STABLE, CANARY)
        assert "more canary requests to show less than 0.25 % of requests failing beyond stable's" in verdict.reason

    def test_no_requests_hold(self) -> None:
        judge = Judge(DEMO)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for at in range(1, 300):
            tick = Tick(at=float(at), seconds=1.0, arms=simple(0, 0, 0, 2))
            verdict = judge.observe(tick, STABLE, CANARY, weight_bp=0)
            assert verdict.decision is Decision.HOLD
        assert verdict.reason == "no requests of the canary in this tick"

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("rps", [2, 20, 500])
    def test_an_outage_of_both_neither_advances_nor_rolls_back(self, seed: int, rps: float) -> None:
        judge = Judge(DEMO)
        judge.start_step(1000, 0.0, Stage.EARLY)
        for tick in ticks(rps=rps, seconds=5, seed=seed):
            judge.observe(tick, STABLE, CANARY)
        outage = Arm(errors=0.6)
        reasons = set()
        for tick in ticks(rps=rps, canary=outage, stable=outage, seconds=300, start=5, seed=seed):
            verdict = judge.observe(tick, STABLE, CANARY)
            assert verdict.decision is Decision.HOLD
            reasons.add(verdict.reason.split(",")[0])
        assert "stable itself is failing" in reasons

    def test_a_broken_stable_does_not_hold_up_its_own_fix(self) -> None:
        _, verdict = judge_until_decided(DEMO, rps=250, stable=Arm(errors=0.2), canary=Arm(errors=0.001))
        assert verdict.decision is Decision.ADVANCE


class TestOwnersCeilings:
    def test_errors_over_the_ceiling_roll_back_when_stable_is_under_it(self) -> None:
        # Four times stable's rate at most is tolerated relative to it, so that only the ceiling can act.
        settings = JudgeSettings(max_error_share=0.02, error_tolerance=8.0, guardrail=False)
        _, verdict = judge_until_decided(settings, rps=200, stable=Arm(errors=0.01), canary=Arm(errors=0.05))
        assert verdict.decision is Decision.ROLL_BACK
        assert verdict.reason == "ceiling: the canary is over the limit of 2.0 % failed requests, stable is not"

    def test_p99_over_the_ceiling_rolls_back(self) -> None:
        settings = JudgeSettings(max_p99_us=60_000, latency_tolerance=3.0)
        _, verdict = judge_until_decided(settings, rps=200, stable=Arm(), canary=Arm(slow=1.6))
        assert verdict.decision is Decision.ROLL_BACK
        assert "60 ms for p99" in verdict.reason

    def test_both_over_the_ceiling_hold(self) -> None:
        settings = JudgeSettings(max_error_share=0.02)
        _, verdict = judge_until_decided(
            settings, rps=200, stable=Arm(errors=0.04), canary=Arm(errors=0.04), seconds=400
        )
        assert verdict.decision is Decision.HOLD
        assert "stable is over the limit of 2.0 % failed requests as the canary is" in verdict.reason


class TestMisuse:
    def test_two_versions_are_needed(self) -> None:
        judge = Judge(DEFAULT)
        judge.start_step(1000, 0.0, Stage.EARLY)
        with pytest.raises(ValueError, match="expected two versions"):
            judge.observe(next(ticks(rps=10)), 1, 1)

    @pytest.mark.parametrize("weight_bp", [0, -1, 10_001])
    def test_a_weight_is_basis_points(self, weight_bp: int) -> None:
        with pytest.raises(ValueError, match="basis points"):
            Judge(DEFAULT).start_step(weight_bp, 0.0, Stage.EARLY)
