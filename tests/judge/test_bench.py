"""The simulation bench: seeded, honest about weights and noise, and its intervals right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from loadtest.bench.rollout.cells import SETS, TARGETS, Cell, Figure
from loadtest.bench.rollout.report import figure_of, wilson
from loadtest.bench.rollout.rules import Phase
from loadtest.bench.rollout.scenario import NOISES, SCENARIOS
from loadtest.bench.rollout.simulate import simulate, simulate_cell
from loadtest.bench.rollout.traffic import CANARY_VERSION, STABLE_VERSION, Traffic
from rollout.ports import Tick


def drawn(scenario: str, noise: str, weights: list[int], *, rps: float = 100.0, seed: int = 1) -> list[Tick]:
    traffic = Traffic(scenario=SCENARIOS[scenario], noise=NOISES[noise], rps=rps, seed=seed, horizon_s=len(weights) + 1)
    return [traffic.next_tick(weight) for weight in weights]


@pytest.mark.parametrize("noise", sorted(NOISES))
def test_one_seed_is_one_traffic(noise: str) -> None:
    weights = [1000] * 45 + [3000] * 45
    assert drawn("identical", noise, weights) == drawn("identical", noise, weights)
    assert drawn("identical", noise, weights) != drawn("identical", noise, weights, seed=2)


def test_the_canary_gets_its_share_from_the_very_second_the_weight_changes() -> None:
    ticks = drawn("identical", "none", [1000] * 200 + [9500] * 200)
    for part, share in ((ticks[:200], 0.1), (ticks[200:], 0.95)):
        canary = sum(tick.arms[CANARY_VERSION].requests for tick in part)
        total = canary + sum(tick.arms[STABLE_VERSION].requests for tick in part)
        assert canary / total == pytest.approx(share, abs=0.01)


def test_scenarios_are_what_they_say() -> None:
    errors = drawn("errors 5 %", "none", [5000] * 300)
    rates = {
        version: sum(t.arms[version].bad for t in errors) / sum(t.arms[version].requests for t in errors)
        for version in (STABLE_VERSION, CANARY_VERSION)
    }
    assert rates[CANARY_VERSION] == pytest.approx(0.05, abs=0.005)
    assert rates[STABLE_VERSION] == pytest.approx(0.001, abs=0.001)

    slow = drawn("p50 +10 %", "none", [5000] * 300)
    medians = {}
    for version in (STABLE_VERSION, CANARY_VERSION):
        counts = np.sum([tick.arms[version].latency for tick in slow], axis=0)
        medians[version] = np.searchsorted(np.cumsum(counts), 0.5 * counts.sum())
    assert medians[CANARY_VERSION] - medians[STABLE_VERSION] == 2


def test_noise_that_arms_share_moves_them_together_and_their_own_does_not() -> None:
    def correlation(noise: str) -> float:
        ticks = drawn("identical", noise, [5000] * 3000, rps=2000.0)
        versions = (STABLE_VERSION, CANARY_VERSION)
        above = np.array([[sum(t.arms[v].latency[62:]) / max(t.arms[v].ok, 1) for t in ticks] for v in versions])
        return float(np.corrcoef(above)[0, 1])

    assert correlation("realistic") > 0.8
    assert correlation("none") < 0.2


def test_a_crash_is_rolled_back_and_an_identical_version_promoted() -> None:
    crash = simulate("crash", "realistic", 200.0, 1)
    assert crash.rolled_back
    assert not crash.missed
    assert crash.seconds < 10
    healthy = simulate("identical", "none", 500.0, 1)
    assert healthy.phase is Phase.PROMOTED
    assert healthy.full_at is not None
    assert healthy.full_at + 300 <= healthy.seconds


def test_a_run_can_be_had_again_from_its_seed() -> None:
    job = (Cell("errors 5 %", "per version", 20.0), 7)
    assert simulate_cell(job) == simulate_cell(job)


@pytest.mark.parametrize(("hits", "runs"), [(0, 50), (1, 50), (25, 50), (50, 50), (3, 1000)])
def test_wilson_interval_agrees_with_scipy(hits: int, runs: int) -> None:
    expected = binomtest(hits, runs).proportion_ci(method="wilson")
    assert wilson(hits, runs) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_every_target_has_its_cell_in_the_quick_set_and_a_stricter_ambition() -> None:
    assert {target.cell for target in TARGETS} == set(SETS["quick"])
    assert all(target.excellent <= target.must for target in TARGETS)


def test_a_median_counts_runs_that_never_got_there() -> None:
    runs = [simulate("identical", "none", 500.0, 1), *(simulate("crash", "none", 200.0, seed) for seed in range(2))]
    assert figure_of(Figure.MINUTES, runs) == float("inf")
