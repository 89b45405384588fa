"""The bench drives the state machine and the judge; the whole controller gives the same weights in every second.

Simulated seconds are recorded with the weight that the bench's rule chose, and played to the real controller (event
loop, journal, lease) on virtual time: the weight that it has leased when it is to read a second is the rule's.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from loadtest.bench.rollout.rules import Penstock
from loadtest.bench.rollout.scenario import NOISES, SCENARIOS
from loadtest.bench.rollout.traffic import CANARY_VERSION, STABLE_VERSION, Traffic, tick_of
from rollout.controller import Controller
from rollout.journal import Journal
from rollout.machine import State
from rollout.ports import Tick
from rollout.settings import ControllerSettings
from rollout.spec import RolloutSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import PATIENCE, TTL_S, World, make_world, running

SPEC = RolloutSpec()
SECONDS = 700

Second = tuple[int, Tick]


def recorded(scenario: str, noise: str, rps: float, run: int) -> tuple[list[Second], State]:
    """One rollout's seconds by the bench: the weight each was served at, and what was counted."""
    runs = 3
    traffic = Traffic(scenario=SCENARIOS[scenario], noise=NOISES[noise], rps=rps, seed=5, runs=runs, horizon_s=SECONDS)
    rule = Penstock(SPEC.judge_settings(), runs, SPEC)
    seconds: list[Second] = []
    while traffic.time < SECONDS and rule.state[run] in (State.STEP, State.BAKING):
        weight = rule.weight_bp
        canary, stable = traffic.next(weight)
        seconds.append((int(weight[run]), tick_of(float(traffic.time), canary, stable, run)))
        rule.see(traffic.time, canary, stable)
    return seconds, rule.state[run]


class Played:
    """`rollout.ports.Evidence` of recorded seconds, from the candidate's first exposure on."""

    def __init__(self, world: World, seconds: list[Second]) -> None:
        self._world, self._seconds = world, seconds
        self.served: list[tuple[int, int]] = []
        """(weight by the controller, weight by the bench) of every second that was read."""

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        weight, now = self._world.weight("digits"), self._world.clock.now()
        index = len(self.served)
        if not weight or index == len(self._seconds):
            return {model: Tick(now, 1.0, missing="nothing is played now") for model in models}
        expected, tick = self._seconds[index]
        self.served.append((weight, expected))
        return {model: replace(tick, at=now) for model in models}


@pytest.mark.parametrize(
    ("scenario", "noise", "rps", "run"),
    [
        ("identical", "none", 2000.0, 0),
        ("identical", "realistic", 2000.0, 1),
        ("errors 1 %", "realistic", 200.0, 0),
        ("errors 5 %", "per version", 20.0, 2),
        ("crash", "realistic", 2.0, 1),
        ("p50 +10 %", "realistic", 2000.0, 0),
    ],
)
def test_the_controller_grants_what_the_bench_grants(scenario: str, noise: str, rps: float, run: int) -> None:
    seconds, end = recorded(scenario, noise, rps, run)

    async def played(clock: VirtualClock) -> tuple[list[tuple[int, int]], State]:
        world = make_world(clock)
        assert (STABLE_VERSION, CANARY_VERSION) == (1, 2)
        evidence = Played(world, seconds)
        controller = Controller(
            serving=world,
            routing=world,
            evidence=evidence,
            journal=Journal(sqlite3.connect(":memory:")),
            clock=clock,
            settings=ControllerSettings(lease_ttl_s=TTL_S),
            patience=PATIENCE,
        )
        async with running(controller, world):
            await controller.start("digits", 2, 1, SPEC)
            while len(evidence.served) < len(seconds):
                await asyncio.sleep(0.5)
            return evidence.served, controller.status("digits").state

    served, state = run_virtual(played)
    assert len(served) == len(seconds)
    assert [weight for weight, _ in served] == [weight for _, weight in served]
    after = {State.PROMOTING: State.PROMOTED, State.ROLLING_BACK: State.ROLLED_BACK}
    assert state in (end, after.get(end))
    assert np.unique([weight for weight, _ in served]).size >= (3 if end is State.PROMOTING else 1)
