"""Traffic to rehearse a rollout on: described in a few figures, or drawn anew from a recorded journal.

Used by `penstock rollout plan` through `rollout.rehearsal`. Every draw is from a seed, so that a plan can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import NormalDist

import numpy as np

from rollout.calibration import Calibrated
from rollout.evidence.envoy_counts import latency_limits_us
from rollout.journal import Kind, Record, RolloutRow
from rollout.judge import Flow
from rollout.ports import FULL_WEIGHT, ArmCounts, Tick
from rollout.records import Tally, tick_from_json
from rollout.rehearsal import CANDIDATE, STABLE

_Z99 = NormalDist().inv_cdf(0.99)


@dataclass(frozen=True, slots=True)
class Answers:
    """How a version answers.

    errors:       share of requests that fail (0.001)
    p50_ms, p99_ms: latency of successful answers, which is log-normal between them (20, 80)
    labelled:     share of answers whose true label comes back (0)
    wrong:        share of those that were wrong (0.1)
    """

    errors: float = 0.001
    p50_ms: float = 20.0
    p99_ms: float = 80.0
    labelled: float = 0.0
    wrong: float = 0.1


class Described:
    """`rps` requests a second, one tick a second."""

    def __init__(self, rps: float, stable: Answers, candidate: Answers, *, seed: int = 0) -> None:
        self._rps, self._rng = rps, np.random.default_rng(seed)
        self.calibrated: Calibrated | None = None
        self._edges_us = latency_limits_us()
        self._answers = {STABLE: stable, CANDIDATE: candidate}
        self._buckets = {version: _buckets(answers, self._edges_us) for version, answers in self._answers.items()}

    @property
    def flow(self) -> Flow:
        like = self._answers[STABLE]
        return Flow(self._rps, like.errors, like.labelled, like.wrong)

    def tick(self, at: float, weight_bp: int) -> Tick:
        share = weight_bp / FULL_WEIGHT
        arms = {STABLE: self._arm(STABLE, self._rps * (1 - share)), CANDIDATE: self._arm(CANDIDATE, self._rps * share)}
        return Tick(at=at + 1.0, seconds=1.0, arms=arms, edges_us=self._edges_us)

    def _arm(self, version: int, expected: float) -> ArmCounts:
        rng, answers = self._rng, self._answers[version]
        requests = int(rng.poisson(expected))
        bad = int(rng.binomial(requests, answers.errors))
        latency = rng.multinomial(requests - bad, self._buckets[version])
        labelled = int(rng.binomial(requests - bad, answers.labelled))
        return ArmCounts(
            ok=requests - bad,
            bad=bad,
            latency=tuple(latency.tolist()),
            labelled=labelled,
            wrong=int(rng.binomial(labelled, answers.wrong)),
        )


class Recorded:
    """The traffic of a rollout's journal, over and over: each tick has as many requests as the recorded one, dealt
    out by the weight that is rehearsed and answered as that version answered then."""

    def __init__(self, row: RolloutRow, records: Sequence[Record], *, seed: int = 0) -> None:
        """Raises ValueError when no request is recorded."""
        self._rng = np.random.default_rng(seed)
        found = (record.body for record in records if record.kind is Kind.CALIBRATION)
        self.calibrated = next(map(Calibrated.from_json, found), None)
        whole = Tally()
        ticks: list[Tick] = []
        edges: tuple[int, ...] = ()
        for record in records:
            if record.kind is Kind.TICK:
                tick = tick_from_json(record.body, edges)
                edges = tick.edges_us
                ticks.append(tick)
                whole = whole.plus(tick)
        if not any(arm.requests for arm in whole.arms.values()):
            raise ValueError(f"rollout {row.id} of {row.model}: expected recorded requests, found none")
        seconds = sum(tick.seconds for tick in ticks)
        stable = whole.arms.get(row.stable, ArmCounts())
        self.flow = Flow(
            rps=sum(arm.requests for arm in whole.arms.values()) / seconds,
            error_rate=stable.bad / max(stable.requests, 1),
            labels=stable.labelled / max(stable.requests, 1),
            wrong_rate=stable.wrong / max(stable.labelled, 1),
        )
        self._versions = {STABLE: row.stable, CANDIDATE: row.candidate}
        self._whole, self._ticks = whole, cycle(ticks)

    def tick(self, at: float, weight_bp: int) -> Tick:
        tick = next(self._ticks)
        at += tick.seconds
        if tick.missing:
            return Tick(at=at, seconds=tick.seconds, missing=tick.missing)
        total = sum(arm.requests for arm in tick.arms.values())
        candidate = int(self._rng.binomial(total, weight_bp / FULL_WEIGHT))
        arms = {STABLE: self._arm(STABLE, total - candidate, tick), CANDIDATE: self._arm(CANDIDATE, candidate, tick)}
        return Tick(at=at, seconds=tick.seconds, arms=arms, edges_us=tick.edges_us)

    def _arm(self, arm: int, requests: int, tick: Tick) -> ArmCounts:
        version = self._versions[arm]
        like = tick.arms.get(version, ArmCounts())
        if not like.ok:  # Nobody was there to answer in this tick: as it answered on the whole.
            like = self._whole.arms.get(version) or self._whole.arms[self._versions[STABLE]]
        bad = int(self._rng.binomial(requests, like.bad / max(like.requests, 1)))
        labelled = int(self._rng.binomial(requests - bad, min(1.0, like.labelled / max(like.ok, 1))))
        return ArmCounts(
            ok=requests - bad,
            bad=bad,
            latency=self._latency(requests - bad, like, len(tick.edges_us) + 1),
            labelled=labelled,
            wrong=int(self._rng.binomial(labelled, like.wrong / max(like.labelled, 1))),
        )

    def _latency(self, answers: int, like: ArmCounts, buckets: int) -> tuple[int, ...]:
        counts = np.array(like.latency if len(like.latency) == buckets else [0] * buckets, dtype=np.float64)
        if not counts.sum():
            return tuple(int(answers * (index == 0)) for index in range(buckets))
        drawn: list[int] = self._rng.multinomial(answers, counts / counts.sum()).tolist()
        return tuple(drawn)


def _buckets(answers: Answers, edges_us: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The share of answers in each latency bucket."""
    median = math.log(answers.p50_ms * 1000.0)
    spread = max(math.log(answers.p99_ms / answers.p50_ms) / _Z99, 1e-6)
    below = [NormalDist(median, spread).cdf(math.log(edge)) for edge in edges_us]
    return np.diff(np.array([0.0, *below, 1.0]))
