"""Mirrored pairs: what a shadow step is judged by, with no user exposed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta as beta_distribution

from rollout.judge import Decision, Judge, JudgeSettings, JudgeState, PairedJudge, Stage, Verdict
from rollout.judge.paired import METRICS, Paired, Pairs
from rollout.ports import PairedCounts, Tick
from tests.judge.traffic import CANARY, STABLE, ticks

SETTINGS = JudgeSettings(shadow_pairs=500)


def pairs(
    rng: np.random.Generator,
    n: int,
    *,
    only_candidate: float,
    only_stable: float,
    disagree: float = 0.0,
    bad: float = 0.0,
) -> PairedCounts:
    """`n` labelled pairs with these shares of answers wrong on one version alone."""
    candidate, stable, _ = rng.multinomial(n, [only_candidate, only_stable, 1 - only_candidate - only_stable])
    disagreed = int(rng.binomial(n, disagree))
    failed = int(rng.binomial(n, bad))
    return PairedCounts(
        both_ok=n - failed,
        candidate_only_bad=failed,
        agreed=n - disagreed,
        disagreed=disagreed,
        labelled=n,
        candidate_only_wrong=int(candidate),
        stable_only_wrong=int(stable),
    )


def judged(settings: JudgeSettings, *, seed: int = 1, ticks: int = 400, **shares: float) -> tuple[int, Verdict]:
    """Pairs until the first decision that is not HOLD, and that verdict."""
    rng, judge = np.random.default_rng(seed), PairedJudge(settings)
    judge.start_step(0.0)
    verdict = Verdict(Decision.HOLD, "")
    for at in range(1, ticks + 1):
        verdict = judge.observe(Tick(float(at), 1.0, paired=pairs(rng, 50, **shares)))
        if verdict.decision is not Decision.HOLD:
            return 50 * at, verdict
    return 50 * ticks, verdict


def test_an_equal_candidate_passes_after_enough_pairs() -> None:
    seen, verdict = judged(SETTINGS, only_candidate=0.02, only_stable=0.02)
    assert verdict.decision is Decision.ADVANCE
    assert seen >= SETTINGS.shadow_pairs


def test_shuffled_labels_are_stopped_within_a_few_dozen_pairs() -> None:
    seen, verdict = judged(SETTINGS, only_candidate=0.85, only_stable=0.01)
    assert verdict.decision is Decision.ROLL_BACK
    assert seen <= 100
    assert verdict.reason.startswith("paired_accuracy: ")


def test_disagreement_beyond_the_owners_limit_is_stopped() -> None:
    limited = replace(SETTINGS, max_disagreement=0.05)
    _, verdict = judged(limited, only_candidate=0.0, only_stable=0.0, disagree=0.15)
    assert verdict.decision is Decision.ROLL_BACK
    assert verdict.reason.startswith("agreement: ")
    assert judged(limited, only_candidate=0.0, only_stable=0.0, disagree=0.01)[1].decision is Decision.ADVANCE
    assert judged(SETTINGS, only_candidate=0.0, only_stable=0.0, disagree=0.9)[1].decision is Decision.ADVANCE


def test_a_candidate_that_fails_where_stable_answers_is_stopped() -> None:
    _, verdict = judged(SETTINGS, only_candidate=0.0, only_stable=0.0, bad=0.05)
    assert verdict.decision is Decision.ROLL_BACK
    assert verdict.reason.startswith("paired_errors: ")


@pytest.mark.parametrize(("only_candidate", "only_stable"), [(0.03, 0.01), (0.04, 0.02)])
def test_two_points_worse_is_stopped_within_five_thousand_pairs(only_candidate: float, only_stable: float) -> None:
    """The 95th percentile over 400 rollouts, 50 mirrored and labelled requests a second."""
    runs, needed = 400, np.inf
    rng, evidence = np.random.default_rng(4), Paired(SETTINGS, runs)
    stopped_at = np.full(runs, np.inf)
    needed = -np.log(SETTINGS.alpha / len(METRICS))
    zeros = np.zeros(runs)
    for tick in range(1, 161):
        worse, better, alike = rng.multinomial(
            50, [only_candidate, only_stable, 1 - only_candidate - only_stable], runs
        ).T
        ok = np.full(runs, 50.0)
        evidence.observe(
            Pairs(
                ok,
                zeros,
                zeros,
                zeros,
                alike * 1.0,
                (worse + better) * 1.0,
                ok,
                worse * 1.0,
                better * 1.0,
                zeros,
                zeros,
            )
        )
        hit = (evidence.log_harm() >= needed).any(axis=0) & np.isinf(stopped_at)
        stopped_at[hit] = 50 * tick
    assert np.quantile(stopped_at, 0.95) <= 5000


def test_equal_versions_are_rarely_stopped_however_often_one_looks() -> None:
    runs = 2000
    rng, evidence = np.random.default_rng(5), Paired(SETTINGS, runs)
    crossed, zeros, ok = np.zeros(runs, dtype=bool), np.zeros(runs), np.full(runs, 50.0)
    needed = -np.log(SETTINGS.alpha / len(METRICS))
    for _ in range(200):
        worse, better, alike = rng.multinomial(50, [0.03, 0.03, 0.94], runs).T.astype(float)
        alone = [rng.binomial(50, 0.01, runs).astype(float) for _ in range(2)]
        slower = [rng.binomial(20, 0.5, runs).astype(float) for _ in range(2)]
        seen = Pairs(ok, zeros, alone[0], alone[1], alike, worse, ok, worse, better, slower[0], slower[1])
        evidence.observe(seen)
        crossed |= (evidence.log_harm() >= needed).any(axis=0)
    hits = int(crossed.sum())
    lower = float(beta_distribution.ppf(0.001, hits, runs - hits + 1)) if hits else 0.0
    assert lower <= SETTINGS.alpha


def test_a_restart_at_any_tick_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    played = [Tick(float(at), 1.0, paired=pairs(rng, 50, only_candidate=0.04, only_stable=0.02)) for at in range(1, 80)]

    def verdicts(restarting: bool) -> list[dict[str, object]]:
        judge, seen = PairedJudge(SETTINGS), []
        judge.start_step(0.0)
        for tick in played:
            if restarting:
                state = json.loads(json.dumps(judge.state().to_json()))
                judge = PairedJudge(SETTINGS, JudgeState.from_json(state))
            seen.append(judge.observe(tick).to_json())
        return seen

    assert verdicts(restarting=True) == verdicts(restarting=False)


@pytest.mark.parametrize(
    ("tick", "words"),
    [
        (Tick(2.0, 1.0), "no mirrored request"),
        (Tick(2.0, 1.0, paired=PairedCounts(missing="the evaluator is dead")), "the evaluator is dead"),
        (Tick(2.0, 1.0, missing="timed out"), "timed out"),
        (Tick(1.0, 1.0, paired=PairedCounts(both_ok=9)), "judged already"),
        (Tick(2.0, 1.0, paired=PairedCounts(both_ok=-1)), "both_ok = -1"),
        (Tick(2.0, 1.0, paired=PairedCounts(disagreed=2**63)), "disagreed = 9223"),
    ],
)
def test_a_fault_holds_with_a_reason_and_leaves_no_trace(tick: Tick, words: str) -> None:
    judge = PairedJudge(SETTINGS)
    judge.start_step(0.0)
    judge.observe(Tick(1.0, 1.0, paired=PairedCounts(both_ok=50, agreed=50)))
    before = judge.state()
    verdict = judge.observe(tick)
    assert verdict.decision is Decision.HOLD
    assert words in verdict.reason
    assert judge.state() == before


def test_pairs_speak_in_steps_with_users_too() -> None:
    judge, rng = Judge(JudgeSettings()), np.random.default_rng(7)
    judge.start_step(1000, 0.0, Stage.EARLY)
    verdict = Verdict(Decision.HOLD, "")
    for tick in ticks(rps=20, seconds=60):
        mirrored = pairs(rng, 50, only_candidate=0.5, only_stable=0.01)
        verdict = judge.observe(replace(tick, paired=mirrored), STABLE, CANARY)
        if verdict.decision is not Decision.HOLD:
            break
    assert verdict.decision is Decision.ROLL_BACK
    assert verdict.reason.startswith("paired_accuracy: ")
