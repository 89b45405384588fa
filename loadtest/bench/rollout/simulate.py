"""Whole rollouts of one cell: traffic against a rule, on virtual time, a batch of rollouts in step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from zlib import crc32

import numpy as np

from loadtest.bench.rollout.cells import Cell
from loadtest.bench.rollout.rivals import Argo, Flagger, Kayenta
from loadtest.bench.rollout.rules import Penstock, Rule
from loadtest.bench.rollout.scenario import NOISES, SCENARIOS, STABLE
from loadtest.bench.rollout.traffic import EDGES_US, Traffic
from rollout.judge.history import calibrate_errors, calibrate_latency
from rollout.judge.settings import JudgeSettings
from rollout.machine import State

HORIZON_S = 7200
HISTORY_S = 10_800
BATCH = 250
"""Rollouts in step. Each batch has another stretch of history."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulated rollout ended. Seconds since its start; counts are the canary's until its end."""

    state: str
    seconds: int
    full_at: int | None
    """When the canary first got all traffic but the holdback."""
    canary_requests: int
    canary_bad: int
    reason: str

    @property
    def rolled_back(self) -> bool:
        return self.state == State.ROLLED_BACK

    @property
    def missed(self) -> bool:
        """A bad canary got all traffic."""
        return self.full_at is not None


DONE = {State.ROLLING_BACK: State.ROLLED_BACK, State.PROMOTING: State.PROMOTED}
"""The judge's part ends here; what these become, the data plane's acknowledgement decides."""


RIVALS = ("Flagger-like", "Argo-like", "Kayenta-like")
NULL_S = 3600
HELD = "Penstock, no step passed"
TOLERANT, TOLERATED = "Penstock, 15 % slower tolerated", 0.15
TOLERANTS = tuple(Cell(scenario, "gc", 200.0) for scenario in ("identical", "p99 +100 %"))
"""What an owner of a server with long sawteeth would set, beyond what the history says."""
NULLS = tuple(Cell("at every tolerance", noise, 200.0) for noise in ("none", "shared", "bursts"))


def penstock(cell: Cell, batch: int, runs: int, latency_tolerance: float = 0.0) -> Rule:
    """The judge, calibrated on the batch's stretch of history."""
    settings = calibrated(cell.noise, cell.rps, batch)
    settings = replace(settings, latency_tolerance=max(settings.latency_tolerance, latency_tolerance))
    return Penstock(settings, runs, check_share=not NOISES[cell.noise].sticky)


RULES: dict[str, Callable[[Cell, int, int], Rule]] = {
    "Penstock": penstock,
    "Flagger-like": lambda _cell, _batch, runs: Flagger(runs),
    "Argo-like": lambda _cell, _batch, runs: Argo(runs),
    "Kayenta-like": lambda _cell, _batch, runs: Kayenta(runs),
    TOLERANT: lambda cell, batch, runs: penstock(cell, batch, runs, TOLERATED),
    HELD: lambda _cell, _batch, runs: Penstock(JudgeSettings(min_step_s=10.0 * HORIZON_S), runs),
}
"""Makes a rule for (cell, batch, number of rollouts)."""


def simulate(
    cell: Cell, batch: int, runs: int, rule_name: str = "Penstock", horizon_s: int = HORIZON_S
) -> list[Outcome]:
    """Run a batch of rollouts until each is decided or two hours are over."""
    rule = RULES[rule_name](cell, batch, runs)
    traffic = Traffic(
        scenario=SCENARIOS[cell.scenario],
        noise=NOISES[cell.noise],
        rps=cell.rps,
        seed=crc32(f"{cell} {batch}".encode()),
        runs=runs,
        horizon_s=horizon_s,
    )
    run_of = np.arange(runs)
    outcomes: dict[int, Outcome] = {}
    full_at = np.full(runs, -1)
    requests, bad = np.zeros(runs), np.zeros(runs)
    while traffic.time < horizon_s and len(run_of):
        weight = rule.weight_bp
        canary, stable = traffic.next(weight)
        requests += canary.requests
        bad += canary.requests - canary.ok
        rule.see(traffic.time, canary, stable)
        states = rule.state
        baking = np.array([state is State.BAKING or state in (State.PROMOTING, State.PROMOTED) for state in states])
        full_at[baking & (full_at < 0)] = traffic.time
        over = np.array([state in DONE or traffic.time == horizon_s for state in states])
        if over.any():
            for row in np.flatnonzero(over):
                outcomes[int(run_of[row])] = Outcome(
                    state=DONE.get(states[row], states[row]).value,
                    seconds=traffic.time,
                    full_at=None if full_at[row] < 0 else int(full_at[row]),
                    canary_requests=int(requests[row]),
                    canary_bad=int(bad[row]),
                    reason=rule.reason[row],
                )
            left = np.flatnonzero(~over)
            run_of, full_at, requests, bad = run_of[left], full_at[left], requests[left], bad[left]
            rule.keep(left)
            traffic.keep(left)
    return [outcomes[run] for run in range(runs)]


@lru_cache(maxsize=256)
def calibrated(noise: str, rps: float, batch: int) -> JudgeSettings:
    """Settings from three hours of stable's history, its requests split in two halves."""
    traffic = Traffic(
        scenario=STABLE,
        noise=NOISES[noise],
        rps=rps,
        seed=crc32(f"history {noise} {rps} {batch}".encode()),
        runs=1,
        horizon_s=HISTORY_S,
    )
    half = np.array([5000])
    counts = np.zeros((2, 2, HISTORY_S))
    latency = np.zeros((2, HISTORY_S, len(EDGES_US) + 1))
    for second in range(HISTORY_S):
        for arm, arms in enumerate(traffic.next(half)):
            counts[arm, :, second] = arms.bad[0], arms.n[0]
            latency[arm, second] = arms.latency[0]
    windows = counts.reshape(2, 2, -1, 10).sum(axis=3)
    minutes = latency.reshape(2, -1, 300, len(EDGES_US) + 1).sum(axis=2)
    calibration = calibrate_errors(windows[0, 0], windows[0, 1], windows[1, 0], windows[1, 1])
    return JudgeSettings(calibration=calibration, latency_tolerance=calibrate_latency(minutes[0], minutes[1], EDGES_US))
