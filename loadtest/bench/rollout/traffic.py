"""Traffic of one simulated rollout, second by second, at whatever weight the rule under test has chosen.

Everything comes from one seed. Counts are drawn in short chunks, vectorised; a changed weight drops what was drawn
beyond it, as the requests then go elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import ndtr

from loadtest.bench.rollout.scenario import STABLE, Noise, Scenario
from rollout.ports import ArmCounts, Tick

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

STABLE_VERSION, CANARY_VERSION = 1, 2
EDGES_US = tuple(round(1000 * 1.05**index) for index in range(100))
_LOG_EDGES: FloatArray = np.log(np.array(EDGES_US))
_BODY, _TAIL, _TAIL_SHARE = (math.log(20_000), 0.35), (math.log(60_000), 0.5), 0.03
LABEL_SHARE = 0.2
CHUNK_S = 30


@dataclass(frozen=True, slots=True)
class ArmChunk:
    """Counts of one version per second (rows)."""

    ok: IntArray
    bad: IntArray
    latency: IntArray
    labelled: IntArray
    wrong: IntArray

    def at(self, row: int) -> ArmCounts:
        return ArmCounts(
            ok=int(self.ok[row]),
            bad=int(self.bad[row]),
            latency=tuple(self.latency[row].tolist()),
            labelled=int(self.labelled[row]),
            wrong=int(self.wrong[row]),
        )


class Traffic:
    """`next_tick(weight_bp)` is the next second of a rollout; `horizon_s` seconds can be drawn."""

    def __init__(self, *, scenario: Scenario, noise: Noise, rps: float, seed: int, horizon_s: int):
        self._rng = np.random.default_rng(seed)
        self._truth = (STABLE, scenario)
        self._noise, self._rps = noise, rps
        self._time, self._weight, self._weight_since = 0, 0, 0
        self._chunk: tuple[ArmChunk, ArmChunk] | None = None
        self._chunk_start = 0
        self._draw_world(horizon_s + CHUNK_S, scenario.outage)
        self._labels = np.zeros((2, 2, horizon_s + CHUNK_S + noise.label_delay_s + 1), dtype=np.int64)

    def _wander(self, seconds: int, sd: float, memory_s: float) -> FloatArray:
        """First-order autoregressive noise with stationary deviation `sd`."""
        if not sd:
            return np.zeros(seconds)
        keep = math.exp(-1.0 / memory_s)
        steps = self._rng.normal(0.0, sd * math.sqrt(1.0 - keep**2), seconds)
        steps[0] = self._rng.normal(0.0, sd)
        result: FloatArray = lfilter([1.0], [1.0, -keep], steps)
        return result

    def _draw_world(self, seconds: int, outage: bool) -> None:
        noise = self._noise
        day = 2.0 * math.pi * (np.arange(seconds) / 86_400.0 + self._rng.random())
        self._load = np.exp(self._wander(seconds, noise.shared_load, 300.0) + noise.shared_load * np.sin(day))
        shared_errors = self._wander(seconds, noise.shared_errors, 120.0)
        shared_latency = self._wander(seconds, noise.shared_latency, 60.0)
        self._common_errors = np.zeros(seconds)
        if noise.bursts:
            for start in np.flatnonzero(self._rng.random(seconds) < 1.0 / 600.0):
                self._common_errors[start : start + 15] += 0.05
            for start in np.flatnonzero(self._rng.random(seconds) < 1.0 / 600.0):
                shared_latency[start : start + 20] += 0.4
        if outage:
            start, length = self._rng.integers(30, 600), self._rng.integers(60, 180)
            self._common_errors[start : start + length] += self._rng.uniform(0.3, 0.6)
            shared_latency[start : start + length] += 0.7
        self._errors = [np.exp(shared_errors + self._wander(seconds, noise.arm_errors, 120.0)) for _ in range(2)]
        self._slow = [shared_latency + self._wander(seconds, noise.arm_latency, 120.0) for _ in range(2)]

    @property
    def time(self) -> int:
        return self._time

    def next_tick(self, weight_bp: int) -> Tick:
        row = self._time - self._chunk_start
        if self._chunk is None or weight_bp != self._weight or row == CHUNK_S:
            if weight_bp != self._weight:
                self._weight, self._weight_since = weight_bp, self._time
            self._chunk_start, row = self._time, 0
            self._chunk = self.chunk(self._time, weight_bp)
        self._time += 1
        arms = {}
        for index, version in enumerate((STABLE_VERSION, CANARY_VERSION)):
            arms[version] = self._chunk[index].at(row)
        return Tick(at=float(self._time), seconds=1.0, arms=self._late_labels(arms), edges_us=EDGES_US)

    def _late_labels(self, arms: dict[int, ArmCounts]) -> dict[int, ArmCounts]:
        if not self._noise.label_delay_s:
            return arms
        now, then = self._time - 1, self._time - 1 + self._noise.label_delay_s
        late = {}
        for index, (version, arm) in enumerate(arms.items()):
            self._labels[index, :, then] = arm.labelled, arm.wrong
            labelled, wrong = self._labels[index, :, now].tolist()
            late[version] = ArmCounts(ok=arm.ok, bad=arm.bad, latency=arm.latency, labelled=labelled, wrong=wrong)
        return late

    def chunk(self, start: int, weight_bp: int) -> tuple[ArmChunk, ArmChunk]:
        """`CHUNK_S` seconds of stable and canary from `start` on, labels without their delay."""
        rng, span = self._rng, slice(start, start + CHUNK_S)
        total = rng.poisson(self._rps * self._load[span])
        canary = rng.binomial(total, weight_bp / 10_000)
        return self._arm(0, total - canary, span), self._arm(1, canary, span)

    def _arm(self, index: int, n: IntArray, span: slice) -> ArmChunk:
        rng, truth = self._rng, self._truth[index]
        rate = np.minimum(truth.errors * self._errors[index][span] + self._common_errors[span], 1.0)
        if truth.errors >= 1.0:
            rate = np.ones_like(rate)
        bad = self._errors_of(n, rate)
        ok = n - bad
        slow = self._slow[index][span]
        if index == 1 and self._noise.warm_up > 1.0:
            waited = np.arange(span.start, span.stop) - self._weight_since
            slow = slow + math.log(self._noise.warm_up) * np.exp(-waited / 25.0)
        latency = rng.multinomial(ok, bucket_shares(slow + math.log(truth.p50), truth.tail))
        labelled = rng.binomial(ok, LABEL_SHARE)
        wrong = rng.binomial(labelled, 1.0 - truth.accuracy)
        return ArmChunk(ok=ok, bad=bad, latency=latency, labelled=labelled, wrong=wrong)

    def _errors_of(self, n: IntArray, rate: FloatArray) -> IntArray:
        if self._noise.cluster <= 1.0:
            return self._rng.binomial(n, rate)
        clusters = self._rng.poisson(n * rate / self._noise.cluster)
        more = self._rng.negative_binomial(np.maximum(clusters, 1), 1.0 / self._noise.cluster)
        few: IntArray = np.minimum(np.where(clusters > 0, clusters + more, 0), n)
        # Clusters are for rare errors; a version that mostly fails does so request by request.
        return np.where(rate < 0.2, few, self._rng.binomial(n, rate))


def bucket_shares(log_slow: FloatArray, tail: float) -> FloatArray:
    """Share of responses per latency bucket (columns) for each second's log factor (rows)."""
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
