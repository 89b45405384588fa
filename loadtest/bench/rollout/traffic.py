"""Traffic of many simulated rollouts in step, second by second, each at whatever weight its rule has chosen.

Everything comes from one seed per batch of rollouts. What the world does (load, dependencies, replicas) is drawn in
advance, so that every rule sees the same world; requests are drawn as they come, since their version depends on the
rule. The judge's own arrays come out (`rollout.judge.counts.Arms`); `tick_of` makes of them what a controller reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import ndtr

from loadtest.bench.rollout.scenario import CLASSES, STABLE, Noise, Scenario
from rollout.judge.counts import Arms
from rollout.ports import ArmCounts, Tick

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

STABLE_VERSION, CANARY_VERSION = 1, 2
EDGES_US = tuple(round(4000 * 1.05**index) for index in range(96))
_LOG_EDGES: FloatArray = np.log(np.array(EDGES_US))
_BODY, _TAIL, _TAIL_SHARE = (math.log(20_000), 0.35), (math.log(60_000), 0.5), 0.03
LABEL_SHARE = 0.2

_LOWEST_SLOW, _SLOW_STEP, _SLOW_STEPS = -1.2, 0.002, 2000
"""Grid of log factors on latency for which bucket shares are worked out once."""

DAY_S = 86_400.0
GC_PERIOD_S = 90.0
CALLERS = 150
"""Callers of sticky traffic; the busiest makes a tenth of the requests."""


@dataclass(slots=True)
class _World:
    """Log factors and shares per second (rows) and rollout (columns), both arms where they differ."""

    load: npt.NDArray[np.float32]
    common_errors: npt.NDArray[np.float32]
    errors: list[npt.NDArray[np.float32]]
    slow: list[npt.NDArray[np.float32]]


class Traffic:
    """`runs` rollouts of one cell. `next(weight_bp)` is the next second of every one that is left."""

    def __init__(self, *, scenario: Scenario, noise: Noise, rps: float, seed: int, runs: int, horizon_s: int):
        self._rng = np.random.default_rng(seed)
        self._truth = (STABLE, scenario)
        self._noise, self._rps = noise, rps
        self.time = 0
        self._rows: IntArray = np.arange(runs)
        self._since: IntArray = np.zeros(runs, dtype=np.int64)
        self._weight: IntArray = np.zeros(runs, dtype=np.int64)
        self._world = self._draw_world(horizon_s, runs, scenario.outage)
        self._late: FloatArray = np.zeros((noise.label_delay_s, 2, 2, runs))
        self._callers = _Callers(self._rng, runs) if noise.sticky else None

    def keep(self, rows: IntArray) -> None:
        """Go on with these rollouts only."""
        self._rows, self._since, self._weight = self._rows[rows], self._since[rows], self._weight[rows]
        self._late = self._late[..., rows]
        if self._callers is not None:
            self._callers.keep(rows)

    def _wander(self, seconds: int, runs: int, sd: float, memory_s: float) -> FloatArray:
        """First-order autoregressive noise with stationary deviation `sd`."""
        if not sd:
            return np.zeros((seconds, runs))
        keep = math.exp(-1.0 / memory_s)
        steps = self._rng.normal(0.0, sd * math.sqrt(1.0 - keep**2), (seconds, runs))
        steps[0] = self._rng.normal(0.0, sd, runs)
        result: FloatArray = lfilter([1.0], [1.0, -keep], steps, axis=0)
        return result

    def _draw_world(self, seconds: int, runs: int, outage: bool) -> _World:
        noise, rng = self._noise, self._rng
        clock = np.arange(seconds)[:, None]
        day = 2.0 * math.pi * (clock / DAY_S + rng.random(runs))
        load = self._wander(seconds, runs, noise.shared_load, 300.0) + noise.diurnal * np.sin(day)
        shared_errors = self._wander(seconds, runs, noise.shared_errors, 120.0)
        shared_latency = self._wander(seconds, runs, noise.shared_latency, 60.0)
        common_errors = np.zeros((seconds, runs))
        if noise.bursts:
            for start, run in np.argwhere(rng.random((seconds, runs)) < 1.0 / 600.0):
                common_errors[start : start + 15, run] += 0.05
            for start, run in np.argwhere(rng.random((seconds, runs)) < 1.0 / 600.0):
                shared_latency[start : start + 20, run] += 0.4
        if outage:
            for run in range(runs):
                start, length = rng.integers(30, 600), rng.integers(60, 180)
                common_errors[start : start + length, run] += rng.uniform(0.3, 0.6)
                shared_latency[start : start + length, run] += 0.7
        errors = [shared_errors + self._wander(seconds, runs, noise.arm_errors, 120.0) for _ in range(2)]
        slow = [shared_latency + self._wander(seconds, runs, noise.arm_latency, 120.0) for _ in range(2)]
        if noise.gc_latency:
            for arm in slow:
                arm += noise.gc_latency * ((clock / GC_PERIOD_S + rng.random(runs)) % 1.0)
        return _World(
            load=np.exp(load).astype(np.float32),
            common_errors=common_errors.astype(np.float32),
            errors=[np.exp(arm).astype(np.float32) for arm in errors],
            slow=[arm.astype(np.float32) for arm in slow],
        )

    def next(self, weight_bp: IntArray) -> tuple[Arms, Arms]:
        """Canary's and stable's counts in the next second."""
        now, rows, rng = self.time, self._rows, self._rng
        self.time += 1
        changed = weight_bp != self._weight
        self._since[changed], self._weight = now, weight_bp.copy()
        mean = self._rps * self._world.load[now, rows].astype(np.float64)
        if self._callers is not None:
            counts = self._callers.draw(mean, weight_bp / 10_000, [self._error_rate(arm) for arm in range(2)])
            n, bad, units = counts.requests, counts.bad, counts.units
        else:
            total = rng.poisson(mean)
            canary = rng.binomial(total, weight_bp / 10_000)
            n = [total - canary, canary]
            bad = [self._errors_of(n[arm], self._error_rate(arm)) for arm in range(2)]
            units = None
        stable, canary_arms = (self._arms(arm, n[arm], bad[arm], units) for arm in range(2))
        return canary_arms, stable

    def _error_rate(self, arm: int) -> FloatArray:
        now, rows, truth = self.time - 1, self._rows, self._truth[arm]
        if truth.errors >= 1.0:
            return np.ones(len(rows))
        rate = truth.errors * self._world.errors[arm][now, rows] + self._world.common_errors[now, rows]
        result: FloatArray = np.minimum(rate.astype(np.float64), 1.0)
        return result

    def _errors_of(self, n: IntArray, rate: FloatArray) -> IntArray:
        if self._noise.cluster <= 1.0:
            return self._rng.binomial(n, rate)
        clusters = self._rng.poisson(n * rate / self._noise.cluster)
        more = self._rng.negative_binomial(np.maximum(clusters, 1), 1.0 / self._noise.cluster)
        few: IntArray = np.minimum(np.where(clusters > 0, clusters + more, 0), n)
        # Clusters are for rare errors; a version that mostly fails does so request by request.
        return np.where(rate < 0.2, few, self._rng.binomial(n, rate))

    def _arms(self, arm: int, n: IntArray, bad: IntArray, units: list[tuple[FloatArray, FloatArray]] | None) -> Arms:
        rng, truth, noise, now = self._rng, self._truth[arm], self._noise, self.time - 1
        ok = n - bad
        slow = self._world.slow[arm][now, self._rows].astype(np.float64) + math.log(truth.p50)
        if arm == 1 and noise.warm_up > 1.0:
            slow = slow + math.log(noise.warm_up) * np.exp(-(now - self._since) / 25.0)
        level = np.clip(np.rint((slow - _LOWEST_SLOW) / _SLOW_STEP), 0, _SLOW_STEPS - 1).astype(np.int64)
        latency = rng.multinomial(ok, share_table(truth.tail)[level])
        right = rng.binomial(ok, LABEL_SHARE * truth.accuracy)
        wrong = rng.binomial(ok - right, LABEL_SHARE * (1.0 - truth.accuracy) / (1.0 - LABEL_SHARE * truth.accuracy))
        if arm == 1 and noise.label_loss:
            right = rng.binomial(right, 1.0 - noise.label_loss)
        labelled_now, wrong_now = self._delayed(arm, right + wrong, wrong)
        zeros = np.zeros(len(n))
        return Arms(
            bad=bad.astype(np.float64) if units is None else units[arm][0],
            n=n.astype(np.float64) if units is None else units[arm][1],
            requests=n.astype(np.float64),
            ok=ok.astype(np.float64),
            latency=latency.astype(np.float64),
            wrong=wrong_now,
            labelled=labelled_now,
            lost=zeros,
            rewards=zeros,
            predicted=rng.multinomial(ok, truth.classes).astype(np.float64),
        )

    def _delayed(self, arm: int, labelled: IntArray, wrong: IntArray) -> tuple[FloatArray, FloatArray]:
        if not self._noise.label_delay_s:
            return labelled.astype(np.float64), wrong.astype(np.float64)
        slot = (self.time - 1) % self._noise.label_delay_s
        then_labelled, then_wrong = self._late[slot, arm].copy()
        self._late[slot, arm] = labelled, wrong
        return then_labelled, then_wrong


@dataclass(frozen=True, slots=True)
class _CallerCounts:
    """Per arm (stable, canary). `units`: callers that failed for the first time, callers that had not before."""

    requests: list[IntArray]
    bad: list[IntArray]
    units: list[tuple[FloatArray, FloatArray]]


class _Callers:
    """Sticky callers of each rollout: who they are, how busy, and which few of them always fail."""

    def __init__(self, rng: np.random.Generator, runs: int) -> None:
        self._rng = rng
        share = 1.0 / np.arange(5, CALLERS + 5)
        self._share = share / share.sum()
        self._place: FloatArray = rng.random((runs, CALLERS))
        # Three of the twenty busiest send what no version can answer.
        self._broken = np.zeros((runs, CALLERS), dtype=bool)
        np.put_along_axis(self._broken, rng.permuted(np.tile(np.arange(20), (runs, 1)), axis=1)[:, :3], True, axis=1)
        self._failed = np.zeros((runs, CALLERS), dtype=bool)

    def keep(self, rows: IntArray) -> None:
        self._place, self._broken, self._failed = self._place[rows], self._broken[rows], self._failed[rows]

    def draw(self, mean: FloatArray, weight: FloatArray, error_rates: list[FloatArray]) -> _CallerCounts:
        requests = self._rng.poisson(mean[:, None] * self._share)
        in_canary = self._place < weight[:, None]
        rate = np.where(in_canary, error_rates[1][:, None], error_rates[0][:, None])
        bad = self._rng.binomial(requests, np.where(self._broken, 1.0, rate))
        at_risk = (requests > 0) & ~self._failed
        newly = at_risk & (bad > 0)
        self._failed |= newly
        arms = (~in_canary, in_canary)
        return _CallerCounts(
            requests=[(requests * arm).sum(axis=1) for arm in arms],
            bad=[(bad * arm).sum(axis=1) for arm in arms],
            units=[((newly & arm).sum(axis=1) * 1.0, (at_risk & arm).sum(axis=1) * 1.0) for arm in arms],
        )


@lru_cache(maxsize=8)
def share_table(tail: float) -> FloatArray:
    """Share of responses per latency bucket (columns) for each level of the log factor (rows)."""
    log_slow = _LOWEST_SLOW + _SLOW_STEP * np.arange(_SLOW_STEPS)
    at_edges = _LOG_EDGES[None, :] - log_slow[:, None]
    above = _exceedance(at_edges)
    if tail > 1.0:
        # What is above the 95th percentile comes `tail` times later; the rest is untouched.
        above = np.maximum(above, np.minimum(_exceedance(at_edges - math.log(tail)), 0.05))
    falling = np.concatenate([np.ones((len(log_slow), 1)), above, np.zeros((len(log_slow), 1))], axis=1)
    inside = np.maximum(-np.diff(falling, axis=1), 0.0)
    shares: FloatArray = inside / inside.sum(axis=1, keepdims=True)
    return shares


def _exceedance(log_x: FloatArray) -> FloatArray:
    body, tail = ndtr((_BODY[0] - log_x) / _BODY[1]), ndtr((_TAIL[0] - log_x) / _TAIL[1])
    result: FloatArray = (1.0 - _TAIL_SHARE) * body + _TAIL_SHARE * tail
    return result


def tick_of(at: float, canary: Arms, stable: Arms, run: int) -> Tick:
    """One rollout's second as a controller reads it from an evidence source."""
    arms = {STABLE_VERSION: _arm_counts(stable, run), CANARY_VERSION: _arm_counts(canary, run)}
    return Tick(at=at, seconds=1.0, arms=arms, edges_us=EDGES_US, classes=CLASSES)


def _arm_counts(arms: Arms, run: int) -> ArmCounts:
    return ArmCounts(
        ok=int(arms.ok[run]),
        bad=int(arms.requests[run] - arms.ok[run]),
        latency=tuple(arms.latency[run].astype(int).tolist()),
        labelled=int(arms.labelled[run]),
        wrong=int(arms.wrong[run]),
        predicted=tuple(arms.predicted[run].astype(int).tolist()),
    )
