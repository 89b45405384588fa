"""P(sup E >= 1/alpha) <= alpha under exact nulls, looked at after every tick, and P(passed | harm at margin) <= beta.

Simulated for many rollouts at once with fixed seeds. The check fails when the crossings exceed what chance allows at
alpha: the lower 99.9 % bound of their rate is above it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta as beta_distribution

from rollout.judge.evalues import rate_against, rate_ratio, two_by_two
from rollout.judge.process import RESTARTS, SAFE_START, EProcess, log_uniform

RUNS, TICKS = 1500, 600
ALPHA = 0.05
ALL = np.arange(RUNS)
Array: TypeAlias = npt.NDArray[np.float64]


def lower_bound(crossings: int, runs: int) -> float:
    """Clopper-Pearson, one-sided 99.9 %."""
    return float(beta_distribution.ppf(0.001, crossings, runs - crossings + 1)) if crossings else 0.0


def assert_rare(crossed: npt.NDArray[np.bool_], level: float = ALPHA) -> None:
    assert lower_bound(int(crossed.sum()), len(crossed)) <= level, f"{crossed.mean():.3f} of runs crossed {level}"


def binomial(rng: np.random.Generator, n: npt.NDArray[np.int64] | int, p: Array | float) -> Array:
    return rng.binomial(n, p, RUNS).astype(np.float64)


def common_noise(rng: np.random.Generator, sd: float) -> Array:
    """A factor per run and tick that both arms share: first-order autoregressive, as load and dependencies are."""
    noise = np.zeros((TICKS, RUNS))
    for tick in range(1, TICKS):
        noise[tick] = 0.95 * noise[tick - 1] + rng.normal(0, sd, RUNS)
    return np.asarray(np.exp(noise))


@pytest.mark.parametrize(("rate", "noise", "canary_share"), [(0.02, 0.0, 0.1), (0.02, 0.3, 0.1), (0.2, 0.3, 0.9)])
def test_errors_at_the_tolerated_ratio_rarely_roll_back(rate: float, noise: float, canary_share: float) -> None:
    rng = np.random.default_rng(11)
    factor = common_noise(rng, noise)
    alternatives = 1.3 * np.geomspace(1.5, 1500, 16)
    process = EProcess(RUNS, (16,), log_prior=log_uniform(16))
    crossed = np.zeros(RUNS, dtype=bool)
    for tick in range(TICKS):
        if tick % 60 == 59 and tick // 60 < RESTARTS:
            process.restart(ALL)
        p_stable = np.minimum(rate * factor[tick], 0.75)
        n_canary, n_stable = int(100 * canary_share), int(100 * (1 - canary_share))
        bad_c = rng.binomial(n_canary, 1.3 * p_stable).astype(float)[:, None]
        bad_s = rng.binomial(n_stable, p_stable).astype(float)[:, None]
        process.multiply(
            ALL,
            bad_c * np.log(alternatives / 1.3)
            + (bad_c + bad_s) * np.log((1.3 * n_canary + n_stable) / (alternatives * n_canary + n_stable)),
        )
        crossed |= process.log_e() >= np.log(1 / ALPHA)
    assert_rare(crossed)
    # The vectorised line above is the judge's own factor.
    assert rate_ratio(3, 10, 2, 90, 1.3, alternatives) == pytest.approx(
        3 * np.log(alternatives / 1.3) + 5 * np.log((13 + 90) / (alternatives * 10 + 90))
    )


@pytest.mark.parametrize(("rate", "noise"), [(0.5, 0.0), (0.05, 0.3), (0.01, 0.3)])
def test_exceedances_at_equal_rates_rarely_roll_back(rate: float, noise: float) -> None:
    rng = np.random.default_rng(12)
    factor = common_noise(rng, noise)
    odds = rate / (1 - rate) * np.exp(np.array([0.08, 0.15, 0.3, 0.5, 0.9, 1.5]))
    process = EProcess(RUNS, (6,), log_prior=log_uniform(6))
    crossed = np.zeros(RUNS, dtype=bool)
    for tick in range(TICKS):
        if tick % 60 == 59:
            process.restart(ALL)
        p = np.minimum(rate * factor[tick], 0.95)
        n_canary, n_stable = rng.poisson(8, RUNS) + 1, rng.poisson(72, RUNS) + 1
        bad_c, bad_s = binomial(rng, n_canary, p), binomial(rng, n_stable, p)
        process.multiply(
            ALL,
            two_by_two(
                bad_c[:, None],
                n_canary[:, None].astype(float),
                bad_s[:, None],
                n_stable[:, None].astype(float),
                odds / (1 + odds),
                rate,
            ),
        )
        crossed |= process.log_e() >= np.log(1 / ALPHA)
    assert_rare(crossed)


def test_a_canary_with_harm_at_the_margin_rarely_passes() -> None:
    rng = np.random.default_rng(13)
    rate, margin = 0.01, 0.02
    errors, wrong = EProcess(RUNS, (), start=SAFE_START), EProcess(RUNS, (), start=SAFE_START)
    crossed = np.zeros((2, RUNS), dtype=bool)
    for tick in range(TICKS):
        if tick % 60 == 59:
            errors.restart(ALL)
            wrong.restart(ALL)
        errors.multiply(ALL, rate_against(binomial(rng, 20, rate + margin), 20, rate, rate + margin))
        # Stable's rate drifts in common here; the ratio test has to hold all the same.
        p = 0.08 * (1 + 0.5 * np.sin(tick / 50))
        bad_c, bad_s = binomial(rng, 20, 1.5 * p), binomial(rng, 180, p)
        wrong.multiply(ALL, two_by_two(bad_c, 20, bad_s, 180, 0.08 / 1.5, 0.08, thinning=1 / 1.5))
        crossed[0] |= errors.log_e() >= np.log(1 / ALPHA)
        crossed[1] |= wrong.log_e() >= np.log(1 / ALPHA)
    assert_rare(crossed[0])
    assert_rare(crossed[1])


def test_the_check_itself_notices_a_test_that_peeks() -> None:
    """The same data judged by a z-test at 5 % in every tick: far more crossings than 5 %."""
    rng = np.random.default_rng(14)
    bad = np.zeros((2, RUNS))
    crossed = np.zeros(RUNS, dtype=bool)
    for tick in range(1, TICKS + 1):
        bad[0] += rng.binomial(10, 0.1, RUNS)
        bad[1] += rng.binomial(90, 0.1, RUNS)
        p = np.maximum(bad.sum(axis=0) / (100 * tick), 1e-9)
        z = (bad[0] - 10 * tick * p) / np.sqrt(9 * tick * p * (1 - p))
        crossed |= z > 1.645
    assert lower_bound(int(crossed.sum()), RUNS) > ALPHA
