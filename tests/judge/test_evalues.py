"""One tick's factors against exact expectations: the mean over all binomial outcomes is at most 1 under the null."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from rollout.judge.evalues import log_sum_exp, rate_against, rate_ratio, two_by_two

COUNTS = st.integers(0, 25)
RATES = st.floats(0.001, 0.7)
FRACTIONS = st.just(0.0) | st.floats(1e-6, 1)
ROUNDING = 1e-9
Array: TypeAlias = npt.NDArray[np.float64]


def outcomes(n: int, p: float) -> tuple[Array, Array]:
    bad = np.arange(n + 1, dtype=float)
    return bad, binom.pmf(bad, n, p)


def mean_of(log_f: Array, p_canary: Array, p_stable: Array) -> float:
    return float((np.exp(log_f) * p_canary[:, None] * p_stable[None, :]).sum())


@settings(max_examples=150, deadline=None)
@given(COUNTS, COUNTS, RATES, FRACTIONS, st.floats(0.05, 3), st.floats(0.01, 0.9))
def test_two_by_two_has_mean_at_most_one_for_every_canary_that_is_no_worse(
    n_canary: int, n_stable: int, p_stable: float, fraction: float, shift: float, theta_stable: float
) -> None:
    if n_canary + n_stable == 0:
        return
    odds = theta_stable / (1 - theta_stable) * np.exp(shift)
    bad_c, mass_c = outcomes(n_canary, p_stable * fraction)
    bad_s, mass_s = outcomes(n_stable, p_stable)
    log_f = two_by_two(bad_c[:, None], n_canary, bad_s[None, :], n_stable, odds / (1 + odds), theta_stable)
    assert mean_of(log_f, mass_c, mass_s) <= 1 + ROUNDING


@settings(max_examples=150, deadline=None)
@given(COUNTS, COUNTS, RATES, st.floats(1.05, 3), st.floats(0.1, 1), st.floats(0.01, 0.9))
def test_thinning_moves_the_null_to_a_ratio(
    n_canary: int, n_stable: int, p_stable: float, ratio: float, fraction: float, theta_stable: float
) -> None:
    if n_canary + n_stable == 0:
        return
    p_canary = min(p_stable * ratio, 1.0) * fraction
    odds = theta_stable / (1 - theta_stable) * 2.0
    bad_c, mass_c = outcomes(n_canary, p_canary)
    bad_s, mass_s = outcomes(n_stable, p_stable)
    log_f = two_by_two(
        bad_c[:, None], n_canary, bad_s[None, :], n_stable, odds / (1 + odds), theta_stable, thinning=1 / ratio
    )
    assert mean_of(log_f, mass_c, mass_s) <= 1 + ROUNDING


@settings(max_examples=150, deadline=None)
@given(COUNTS, COUNTS, st.floats(0.001, 0.3), st.floats(1.1, 3), st.floats(1, 2), st.floats(0.01, 0.9))
def test_non_inferiority_has_mean_at_most_one_for_every_canary_at_the_margin_or_beyond(
    n_canary: int, n_stable: int, p_stable: float, ratio: float, beyond: float, theta_stable: float
) -> None:
    if n_canary + n_stable == 0:
        return
    p_canary = min(p_stable * ratio * beyond, 1.0)
    bad_c, mass_c = outcomes(n_canary, p_canary)
    bad_s, mass_s = outcomes(n_stable, p_stable)
    log_g = two_by_two(
        bad_c[:, None], n_canary, bad_s[None, :], n_stable, theta_stable / ratio, theta_stable, thinning=1 / ratio
    )
    assert mean_of(log_g, mass_c, mass_s) <= 1 + ROUNDING


@settings(max_examples=150, deadline=None)
@given(COUNTS, COUNTS, RATES, FRACTIONS, st.floats(1.1, 100))
def test_rate_ratio_has_mean_at_most_one_up_to_the_tolerated_ratio(
    n_canary: int, n_stable: int, p_stable: float, fraction: float, factor: float
) -> None:
    if n_canary + n_stable == 0:
        return
    ratio = 1.3
    p_canary = min(ratio * p_stable, 1.0) * fraction
    alternatives = np.array([ratio * factor])
    bad_c, mass_c = outcomes(n_canary, p_canary)
    bad_s, mass_s = outcomes(n_stable, p_stable)
    log_f = np.array([[rate_ratio(c, n_canary, s, n_stable, ratio, alternatives)[0] for s in bad_s] for c in bad_c])
    assert mean_of(log_f, mass_c, mass_s) <= 1 + ROUNDING


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.floats(0.001, 0.5), st.floats(0.1, 0.9), FRACTIONS)
def test_rate_against_a_fixed_rate_is_a_likelihood_ratio(n: int, null: float, below: float, fraction: float) -> None:
    bad, mass = outcomes(n, null)
    lower = null * below
    # At the null itself the mean of a likelihood ratio is exactly 1, from either side.
    assert np.exp(rate_against(bad, n, lower, null)) @ mass == pytest.approx(1.0, abs=1e-7)
    assert np.exp(rate_against(bad, n, null, lower)) @ binom.pmf(bad, n, lower) == pytest.approx(1.0, abs=1e-6)
    better = binom.pmf(bad, n, lower * fraction)
    assert np.exp(rate_against(bad, n, null, lower)) @ better <= 1 + ROUNDING


def test_two_by_two_agrees_with_the_ratio_of_two_likelihoods() -> None:
    x_c, n_c, x_s, n_s, theta_c, theta_s = 7, 40, 11, 300, 0.12, 0.04
    pooled = (n_c * theta_c + n_s * theta_s) / (n_c + n_s)
    expected = (
        binom.logpmf(x_c, n_c, theta_c)
        + binom.logpmf(x_s, n_s, theta_s)
        - binom.logpmf(x_c, n_c, pooled)
        - binom.logpmf(x_s, n_s, pooled)
    )
    assert float(two_by_two(x_c, n_c, x_s, n_s, theta_c, theta_s)) == pytest.approx(float(expected))


@pytest.mark.parametrize(("n_canary", "n_stable"), [(0, 50), (50, 0)])
def test_an_arm_without_requests_gives_no_evidence(n_canary: int, n_stable: int) -> None:
    assert float(two_by_two(0.2 * n_canary, n_canary, 0.2 * n_stable, n_stable, 0.3, 0.1)) == pytest.approx(0.0)


def test_log_sum_exp_does_not_overflow() -> None:
    values = np.array([[1000.0, 1000.0], [-2000.0, -2000.0 + np.log(3)]])
    assert log_sum_exp(values) == pytest.approx([1000.0 + np.log(2), -2000.0 + np.log(4)])
