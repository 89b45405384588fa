"""The simulation bench: seeded, honest about weights and noise, resumable, and its intervals right."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from loadtest.bench.rollout.__main__ import plan
from loadtest.bench.rollout.cells import BAD_RUNS, GROSS, GROSS_RUNS, HEALTHY_RUNS, SETS, TARGETS, Cell, Figure
from loadtest.bench.rollout.figures import measure, middle, share
from loadtest.bench.rollout.page import judged, page
from loadtest.bench.rollout.rivals import one_sided_mann_whitney
from loadtest.bench.rollout.scenario import NOISES, SCENARIOS
from loadtest.bench.rollout.simulate import HELD, NULLS, RULES, Outcome, simulate
from loadtest.bench.rollout.store import Store
from loadtest.bench.rollout.traffic import FloatArray, Traffic
from rollout.judge.counts import Arms

RUNS = 8


def drawn(
    scenario: str, noise: str, weights: list[int], *, rps: float = 100.0, seed: int = 1
) -> list[tuple[Arms, Arms]]:
    """(canary, stable) of each second at these weights."""
    traffic = Traffic(
        scenario=SCENARIOS[scenario], noise=NOISES[noise], rps=rps, seed=seed, runs=RUNS, horizon_s=len(weights)
    )
    return [traffic.next(np.full(RUNS, weight)) for weight in weights]


def total(seconds: list[tuple[Arms, Arms]], arm: int, name: str) -> FloatArray:
    return np.asarray(np.sum([getattr(second[arm], name) for second in seconds], axis=0))


@pytest.mark.parametrize("noise", sorted(NOISES))
def test_one_seed_is_one_traffic(noise: str) -> None:
    weights = [1000] * 20 + [3000] * 20
    once, again, other = (drawn("identical", noise, weights, seed=seed) for seed in (1, 1, 2))
    for name in ("requests", "ok", "latency", "labelled", "wrong"):
        assert np.array_equal(total(once, 0, name), total(again, 0, name))
    assert not np.array_equal(total(once, 0, "latency"), total(other, 0, "latency"))


def test_the_canary_gets_its_share_from_the_very_second_the_weight_changes() -> None:
    seconds = drawn("identical", "none", [1000] * 100 + [9500] * 100)
    for part, expected in ((seconds[:100], 0.1), (seconds[100:], 0.95)):
        canary, stable = (total(part, arm, "requests").sum() for arm in range(2))
        assert canary / (canary + stable) == pytest.approx(expected, abs=0.01)


def test_scenarios_are_what_they_say() -> None:
    errors = drawn("errors 5 %", "none", [5000] * 100)
    rates = [1.0 - total(errors, arm, "ok").sum() / total(errors, arm, "requests").sum() for arm in range(2)]
    assert rates == pytest.approx([0.05, 0.001], abs=0.004)
    slow = drawn("p50 +10 %", "none", [5000] * 100)
    medians = []
    for arm in range(2):
        counts = total(slow, arm, "latency").sum(axis=0)
        medians.append(int(np.searchsorted(np.cumsum(counts), 0.5 * counts.sum())))
    assert medians[0] - medians[1] == 2
    drift = drawn("drift only", "none", [5000] * 100)
    shares = [total(drift, arm, "predicted").sum(axis=0) / total(drift, arm, "ok").sum() for arm in range(2)]
    assert shares[0][3] - shares[1][3] == pytest.approx(0.2, abs=0.02)


def test_noise_that_arms_share_moves_them_together_and_their_own_does_not() -> None:
    def correlation(noise: str) -> float:
        seconds = drawn("identical", noise, [5000] * 800, rps=2000.0)
        above = [[second[arm].latency[0, 33:].sum() / second[arm].ok[0] for second in seconds] for arm in range(2)]
        return float(np.corrcoef(above)[0, 1])

    assert correlation("realistic") > 0.8
    assert correlation("none") < 0.2
    assert correlation("gc") < 0.95


def test_bad_sticky_callers_stay_where_they_are_and_count_once() -> None:
    seconds = drawn("identical", "sticky", [1000] * 300, rps=200.0)
    assert (total(seconds, 0, "bad") + total(seconds, 1, "bad")).max() < 100
    failed = np.sum([total(seconds, arm, "requests") - total(seconds, arm, "ok") for arm in range(2)], axis=0)
    assert failed.min() > 1000


def test_labels_of_right_answers_get_lost_for_the_canary_only() -> None:
    seconds = drawn("identical", "label loss", [5000] * 300)
    wrong = [total(seconds, arm, "wrong").sum() / total(seconds, arm, "labelled").sum() for arm in range(2)]
    assert wrong[0] > 1.8 * wrong[1]


def test_a_crash_is_rolled_back_and_an_identical_version_promoted() -> None:
    for crash in simulate(Cell("crash", "realistic", 200.0), 0, RUNS):
        assert crash.rolled_back
        assert not crash.missed
        assert crash.seconds < 10
    for healthy in simulate(Cell("identical", "none", 500.0), 0, RUNS):
        assert healthy.state == "promoted"
        assert healthy.full_at is not None
        assert healthy.full_at + 90 <= healthy.seconds


def test_a_few_bad_sticky_callers_roll_no_healthy_version_back() -> None:
    assert not any(
        outcome.rolled_back for outcome in simulate(Cell("identical", "sticky", 200.0), 0, 40, horizon_s=600)
    )


def test_lost_labels_of_one_version_neither_advance_nor_roll_back() -> None:
    outcomes = simulate(Cell("identical", "label loss", 200.0), 0, 20, horizon_s=900)
    assert {outcome.state for outcome in outcomes} == {"step"}


def test_a_batch_can_be_had_again_and_differs_from_the_next() -> None:
    cell = Cell("errors 5 %", "per version", 20.0)
    assert simulate(cell, 3, RUNS) == simulate(cell, 3, RUNS) != simulate(cell, 4, RUNS)


@pytest.mark.parametrize("rule", sorted(set(RULES) - {HELD}))
def test_every_rule_sees_a_lasting_gross_failure(rule: str) -> None:
    outcomes = simulate(Cell("crash", "none", 20.0), 0, RUNS, rule)
    assert all(outcome.rolled_back for outcome in outcomes)


def test_a_rule_of_thresholds_knows_nothing_of_small_regressions() -> None:
    outcomes = simulate(Cell("errors 0.5 %", "none", 200.0), 0, RUNS, "Flagger-like")
    assert all(outcome.missed for outcome in outcomes)


def test_mann_whitney_agrees_with_scipy() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(1)
    canary, stable = rng.integers(0, 6, (2, 3, 40, 2)).astype(float)
    expected = mannwhitneyu(canary, stable, axis=1, alternative="greater", method="asymptotic").pvalue
    assert one_sided_mann_whitney(canary, stable) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("hits", "runs"), [(0, 50), (1, 50), (25, 50), (50, 50), (3, 1000)])
def test_wilson_interval_agrees_with_scipy(hits: int, runs: int) -> None:
    expected = binomtest(hits, runs).proportion_ci(method="wilson")
    measured = share(hits, runs)
    assert (measured.low, measured.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_interval_of_a_median_covers_it() -> None:
    rng = np.random.default_rng(2)
    measured = [middle(rng.exponential(1.0, 101).tolist()) for _ in range(400)]
    covered = sum(m.low <= math.log(2.0) <= m.high for m in measured)
    assert covered / 400 > 0.92


def test_a_median_counts_runs_that_never_got_there() -> None:
    back = Outcome("rolled_back", 10, None, 50, 5, "errors")
    full = Outcome("promoted", 900, 600, 5000, 5, "")
    assert measure(Figure.MINUTES, [back, back, full]).value == math.inf
    assert measure(Figure.REQUESTS, [back, full, full]).value == math.inf


def test_every_target_has_its_cell_and_the_runs_that_are_laid_down() -> None:
    assert {target.cell for target in TARGETS} <= set(SETS["full"])
    assert all(target.excellent <= target.must for target in TARGETS)
    runs: dict[Cell, int] = {}
    for rule, cell, _, count in plan("full", 1.0, 0.0):
        if rule == "Penstock":
            runs[cell] = runs.get(cell, 0) + count
    for cell, count in runs.items():
        few = SCENARIOS[cell.scenario].bad and cell.scenario not in GROSS
        assert count == (BAD_RUNS if few else HEALTHY_RUNS)
    assert BAD_RUNS >= 400
    assert HEALTHY_RUNS == GROSS_RUNS >= 1000


def test_outcomes_are_kept_and_a_batch_is_run_once(tmp_path: Path) -> None:
    path, cell = tmp_path / "outcomes.jsonl", Cell("crash", "realistic", 20.0)
    outcomes = simulate(cell, 0, RUNS)
    Store(path).add("Penstock", cell, 0, outcomes)
    store = Store(path)
    assert store.outcomes["Penstock", cell] == outcomes
    assert store.has("Penstock", cell, 0)
    assert not store.has("Penstock", cell, 1)
    assert not store.has("Argo-like", cell, 0)


def test_the_page_says_what_was_missed() -> None:
    cell = Cell("crash", "realistic", 20.0)
    late = [Outcome("promoted", 900, 600, 5000, 5, "")] * 10
    text = page({("Penstock", cell): late, ("Argo-like", cell): late, (HELD, NULLS[0]): late})
    assert "MISSED" in text
    assert "| missed | crash | realistic | 20 | 0 | 0 | 100 % [72 %, 100 %] | 10 | MISSED |" in text
    assert [target.cell for target, _ in judged({("Penstock", cell): late})] == [cell, cell]
