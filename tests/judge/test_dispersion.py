"""Noise between equal arms raises phi; independence, common noise and lasting harm do not."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from rollout.judge.dispersion import LARGEST_PHI, Calibration, OnlineDispersion
from rollout.judge.history import calibrate_errors, calibrate_latency
from tests.judge.traffic import EDGES_US

Array: TypeAlias = npt.NDArray[np.float64]
SECONDS = 7200
FIRST = np.zeros(1, dtype=np.int64)


def observe(dispersion: OnlineDispersion, canary: float, stable: float, n_canary: float, n_stable: float) -> None:
    bad_canary, bad_stable = np.array([[canary]]), np.array([[stable]])
    dispersion.observe(FIRST, bad_canary, np.array([n_canary]), bad_stable, np.array([n_stable]), np.ones(1))


def phi_of(bad_canary: Array, bad_stable: Array, n_canary: float = 30, n_stable: float = 270) -> float:
    dispersion = OnlineDispersion(1, 1)
    for canary, stable in zip(bad_canary, bad_stable, strict=True):
        observe(dispersion, canary, stable, n_canary, n_stable)
    return float(dispersion.phi[0, 0])


def binomial(rng: np.random.Generator, n: int, p: Array | float) -> Array:
    return rng.binomial(n, p, SECONDS).astype(np.float64)


def test_independent_requests_need_no_correction() -> None:
    rng = np.random.default_rng(1)
    assert phi_of(binomial(rng, 30, 0.02), binomial(rng, 270, 0.02)) < 1.5


def test_a_request_or_two_per_tick_need_none_either() -> None:
    rng = np.random.default_rng(10)
    assert phi_of(binomial(rng, 1, 0.3), binomial(rng, 1, 0.3), 1, 1) < 1.5


def test_noise_that_both_arms_share_needs_none() -> None:
    rng = np.random.default_rng(2)
    common = 0.02 * np.exp(rng.normal(0, 0.8, SECONDS // 60).repeat(60))
    assert phi_of(binomial(rng, 30, common), binomial(rng, 270, common)) < 1.5


def test_lasting_harm_is_not_taken_for_noise() -> None:
    rng = np.random.default_rng(3)
    assert phi_of(binomial(rng, 30, 0.06), binomial(rng, 270, 0.02)) < 1.5


def test_errors_in_clusters_are() -> None:
    rng = np.random.default_rng(4)
    canary, stable = 5 * binomial(rng, 6, 0.02), 5 * binomial(rng, 54, 0.02)
    assert 3 < phi_of(canary, stable) < 8


def test_the_onset_of_harm_is_one_jump() -> None:
    rng = np.random.default_rng(5)
    canary = binomial(rng, 30, 0.02)
    canary[3600:] += 15
    assert phi_of(canary, binomial(rng, 270, 0.02)) < 2


def test_phi_is_bounded() -> None:
    rng = np.random.default_rng(6)
    wild = 0.5 + 0.49 * rng.choice([-1, 1], SECONDS // 60).repeat(60)
    assert phi_of(binomial(rng, 30, wild), binomial(rng, 270, 0.5)) == LARGEST_PHI


def test_a_step_starts_its_blocks_anew() -> None:
    """The excess of one weight says nothing of another's: its block neither ends nor is compared across the change."""
    dispersion = OnlineDispersion(1, 1)
    for bad in (0.0, 9.0):
        for _ in range(600):
            observe(dispersion, bad, 9.0, 30.0, 270.0)
        dispersion.start_step(FIRST)
    assert float(dispersion.phi[0, 0]) == 1.0


def phi_at(calibration: Calibration, recent_variance: float) -> float:
    return float(calibration.phi(np.array([recent_variance]))[0])


class TestHistory:
    def test_independent_errors_calibrate_to_one(self) -> None:
        rng = np.random.default_rng(7)
        n = np.full(1080, 500.0)
        a, b = rng.binomial(500, 0.02, (2, 1080)).astype(float)
        calibration = calibrate_errors(a, n, b, n)
        assert calibration.scale == pytest.approx(1.0, abs=0.15)
        assert phi_at(calibration, 100.0) < 1.5

    def test_slow_swings_of_each_half_grow_with_the_traffic(self) -> None:
        rng = np.random.default_rng(8)
        n = np.full(1080, 5000.0)
        rates = 0.02 * np.exp(rng.normal(0, 0.4, (2, 36)).repeat(30, axis=1))
        a, b = rng.binomial(5000, rates).astype(float)
        calibration = calibrate_errors(a, n, b, n)
        assert calibration.slope > 0.01
        assert phi_at(calibration, 1000.0) > 5 * phi_at(calibration, 0.0)

    def test_no_errors_calibrate_to_next_to_nothing(self) -> None:
        zeros, n = np.zeros(100), np.full(100, 50.0)
        calibration = calibrate_errors(zeros, n, zeros, n)
        assert calibration.scale == pytest.approx(1.15)
        assert phi_at(calibration, 100.0) == phi_at(Calibration(scale=calibration.scale), 0.0)

    @pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.05), (0.01, 0.05), (0.03, 0.16)])
    def test_latency_tolerance_is_three_times_the_noise(self, noise: float, tolerance: float) -> None:
        rng = np.random.default_rng(9)
        halves = []
        for _ in range(2):
            samples = [rng.lognormal(np.log(20_000) + rng.normal(0, noise), 0.4, 2000) for _ in range(60)]
            counts = [np.bincount(np.searchsorted(EDGES_US, s), minlength=len(EDGES_US) + 1) for s in samples]
            halves.append(np.array(counts, dtype=float))
        assert calibrate_latency(halves[0], halves[1], EDGES_US) == pytest.approx(tolerance, abs=0.003)
