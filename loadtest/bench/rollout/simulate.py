"""One whole rollout: traffic against a rule, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loadtest.bench.rollout.cells import Cell
from loadtest.bench.rollout.rules import JudgeRule, Phase, Rule
from loadtest.bench.rollout.scenario import NOISES, SCENARIOS, STABLE
from loadtest.bench.rollout.traffic import CANARY_VERSION, CHUNK_S, EDGES_US, Traffic
from rollout.judge import Calibration, JudgeSettings
from rollout.judge.history import calibrate_errors, calibrate_latency

HORIZON_S = 7200
HISTORY_S = 10_800
HISTORIES = 4
"""Different stretches of history per kind of traffic; runs take them in turn."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulated rollout ended. Seconds since its start; counts are the canary's until its end."""

    scenario: str
    noise: str
    rps: float
    seed: int
    phase: Phase
    seconds: int
    full_at: int | None
    """When the canary first got (nearly) all traffic."""
    canary_requests: int
    canary_bad: int
    reason: str

    @property
    def rolled_back(self) -> bool:
        return self.phase is Phase.ROLLED_BACK

    @property
    def missed(self) -> bool:
        """A bad canary got all traffic."""
        return self.full_at is not None


def simulate(scenario: str, noise: str, rps: float, seed: int, make_rule: Callable[[], Rule] | None = None) -> Outcome:
    """Run one rollout until it is decided or two hours are over; by default, under the judge calibrated on history."""
    rule = make_rule() if make_rule else JudgeRule(calibrated(noise, rps, seed % HISTORIES))
    traffic = Traffic(scenario=SCENARIOS[scenario], noise=NOISES[noise], rps=rps, seed=seed, horizon_s=HORIZON_S)
    full_at, requests, bad = None, 0, 0
    while traffic.time < HORIZON_S:
        tick = traffic.next_tick(rule.weight_bp)
        arm = tick.arms[CANARY_VERSION]
        requests += arm.requests
        bad += arm.bad
        rule.see(tick)
        if rule.phase is Phase.BAKING and full_at is None:
            full_at = traffic.time
        if rule.phase in (Phase.PROMOTED, Phase.ROLLED_BACK):
            break
    return Outcome(
        scenario=scenario,
        noise=noise,
        rps=rps,
        seed=seed,
        phase=rule.phase,
        seconds=traffic.time,
        full_at=full_at,
        canary_requests=requests,
        canary_bad=bad,
        reason=rule.reason,
    )


def simulate_cell(job: tuple[Cell, int]) -> tuple[Cell, Outcome]:
    """A cell's run by seed, for worker processes: they find this by name, which they cannot for what is in __main__."""
    cell, seed = job
    return cell, simulate(cell.scenario, cell.noise, cell.rps, seed)


@lru_cache(maxsize=256)
def calibrated(noise: str, rps: float, history: int) -> JudgeSettings:
    """Settings from three hours of stable's history, its requests split in two halves."""
    traffic = Traffic(scenario=STABLE, noise=NOISES[noise], rps=rps, seed=10_000_019 + history, horizon_s=HISTORY_S)
    halves: tuple[list[list[object]], list[list[object]]] = ([], [])
    counts = []
    for start in range(0, HISTORY_S, CHUNK_S):
        pair = traffic.chunk(start, 5000)
        counts.append(np.array([[arm.bad, arm.ok + arm.bad] for arm in pair], dtype=np.float64))
        for half, arm in zip(halves, pair, strict=True):
            half.append(arm.latency.sum(axis=0).tolist())
    # (arm, bad/all, seconds) in windows of ten seconds
    windows = np.concatenate(counts, axis=2).reshape(2, 2, -1, 10).sum(axis=3)
    latency = [np.array(half, dtype=np.float64).reshape(-1, 10, len(EDGES_US) + 1).sum(axis=1) for half in halves]
    calibration: Calibration = calibrate_errors(windows[0, 0], windows[0, 1], windows[1, 0], windows[1, 1])
    return JudgeSettings(calibration=calibration, latency_tolerance=calibrate_latency(latency[0], latency[1], EDGES_US))
