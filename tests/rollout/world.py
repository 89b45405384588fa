"""A made-up world on virtual time: servers, a data plane whose lease lapses, and the traffic that flows through it.

The real parts of the ports are the gateway's and need Envoy and real seconds; what is tested here is the controller,
the machine, the journal and the judge, all real. Traffic is a function of seed, time and weight alone, so that a
controller that was killed and came back sees what it would have seen.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from rollout.calibration import History
from rollout.controller import Controller
from rollout.journal import Journal
from rollout.machine import State
from rollout.notifier import Notifier
from rollout.performer import Check, Patience
from rollout.ports import FULL_WEIGHT, NOTHING, ArmCounts, Evidence, LoadRefused, PairedCounts, Tick
from rollout.report import RolloutStatus
from rollout.settings import ControllerSettings
from rollout.spec import FixedMargins, RolloutSpec
from tests.rollout.virtual import VirtualClock, run_virtual

TTL_S = 30.0
EDGES_US = tuple(int(500 * 1.05**index) for index in range(140))


@dataclass(frozen=True)
class Behaviour:
    """How a version answers: share of failures and wrong labels, median latency; how often it differs from stable."""

    errors: float = 0.001
    wrong: float = 0.05
    median_us: float = 4000.0
    differs: float = 0.01


@dataclass
class World:
    """Versions 1.. of any model behave as `versions` says; `rps` requests a second, a share of them labelled."""

    clock: VirtualClock
    versions: dict[int, Behaviour]
    rps: float = 200.0
    labelled: float = 0.3
    seed: int = 1
    load_s: float = 3.0
    read_s: float = 0.0

    stable: dict[str, int] = field(default_factory=dict)
    staged: set[tuple[str, int]] = field(default_factory=set)
    loaded: set[tuple[str, int]] = field(default_factory=set)
    down: set[int] = field(default_factory=set)
    refuse_load: dict[int, str] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    missing: str = ""
    calls: list[tuple[str, float, str, int]] = field(default_factory=list)
    weights_seen: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    mirrors_seen: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lease: dict[str, int] = {}
        self._mirrors: dict[str, int] = {}
        self._lease_at = -1e9
        self._read_at: dict[str, float] = {}

    # Serving

    async def load(self, model: str, version: int) -> None:
        self._call("load", model, version)
        await self.clock.sleep(self.load_s)
        if version in self.refuse_load:
            raise LoadRefused(self.refuse_load[version])
        self.loaded.add((model, version))

    async def ready(self, model: str, version: int) -> bool:
        return (model, version) in self.loaded and version not in self.down

    async def unload(self, model: str, version: int) -> None:
        self._call("unload", model, version)
        self.forbid(self.stable.get(model) == version, "a version that serves was unloaded")
        self.loaded.discard((model, version))

    # Routing

    async def stage(self, model: str, candidate: int) -> None:
        self._call("stage", model, candidate)
        self.forbid((model, candidate) not in self.loaded, "a version that is not loaded was made routable")
        self.staged.add((model, candidate))

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int] = NOTHING) -> None:
        if "lease" in self.broken:
            raise self.broken["lease"]
        self._lease, self._lease_at = dict(weights), self.clock.monotonic()
        self.weights_seen.append((self.clock.monotonic(), dict(weights)))
        self._mirrors = dict(mirrors)
        self.mirrors_seen.append((self.clock.monotonic(), dict(mirrors)))

    async def promote(self, model: str, candidate: int) -> None:
        self._call("promote", model, candidate)
        self.forbid((model, candidate) not in self.loaded, "a version that is not loaded was made stable")
        self.stable[model] = candidate

    async def withdraw(self, model: str, candidate: int) -> None:
        self._call("withdraw", model, candidate)
        self.staged.discard((model, candidate))

    def _call(self, name: str, model: str, version: int) -> None:
        self.calls.append((name, self.clock.monotonic(), model, version))
        if name in self.broken:
            raise self.broken[name]

    def forbid(self, happened: bool, what: str) -> None:
        """Noted, not raised: the controller takes what its ports raise for trouble and goes on."""
        if happened:
            self.violations.append(f"{what} at {self.clock.monotonic():.1f} s")

    def weight(self, model: str) -> int:
        """What the data plane does now, whoever is alive."""
        return self._lease.get(model, 0) if self.clock.monotonic() - self._lease_at < TTL_S else 0

    # Evidence

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        if "read" in self.broken:
            raise self.broken["read"]
        await self.clock.sleep(self.read_s)
        self._read_at = {model: at for model, at in self._read_at.items() if model in models}
        return {model: self._tick(model) for model in models}

    def _tick(self, model: str) -> Tick:
        at, last = self.clock.now(), self._read_at.get(model)
        self._read_at[model] = at
        if self.missing or last is None:
            return Tick(at=at, seconds=1.0, missing=self.missing or "first reading")
        stable = self.stable[model]
        candidates = [version for name, version in self.staged if name == model and version != stable]
        total, share = self.rps * (at - last), self.weight(model) / FULL_WEIGHT
        arms = {stable: self._arm(stable, total * (1 - share if candidates else 1.0), at)}
        for version in candidates:
            arms[version] = self._arm(version, total * share, at)
        paired = self._pairs(model, self.rps * (at - last), at)
        return Tick(at=at, seconds=at - last, arms=arms, edges_us=EDGES_US, paired=paired)

    def _pairs(self, model: str, requests: float, at: float) -> PairedCounts | None:
        """What a mirror evaluator would have compared, by the share that is copied."""
        alive = self.clock.monotonic() - self._lease_at < TTL_S
        share = self._mirrors.get(model, 0) / FULL_WEIGHT if alive else 0.0
        candidates = [version for name, version in self.staged if name == model and version != self.stable[model]]
        if not share or not candidates:
            return None
        rng = np.random.default_rng([self.seed, 99, round(at * 10)])
        compared = int(rng.poisson(requests * share))
        failed = int(rng.binomial(compared, self.versions[candidates[0]].errors))
        disagreed = int(rng.binomial(compared - failed, self.versions[candidates[0]].differs))
        return PairedCounts(
            both_ok=compared - failed,
            candidate_only_bad=failed,
            agreed=compared - failed - disagreed,
            disagreed=disagreed,
        )

    def _arm(self, version: int, expected: float, at: float) -> ArmCounts:
        rng = np.random.default_rng([self.seed, version, round(at * 10)])
        behaviour = self.versions[version]
        requests = int(rng.poisson(expected))
        bad = int(rng.binomial(requests, behaviour.errors))
        latency_us = behaviour.median_us * np.exp(0.4 * rng.standard_normal(requests - bad))
        buckets = np.bincount(np.searchsorted(EDGES_US, latency_us), minlength=len(EDGES_US) + 1)
        labelled = int(rng.binomial(requests - bad, self.labelled))
        return ArmCounts(
            ok=requests - bad,
            bad=bad,
            latency=tuple(int(count) for count in buckets),
            labelled=labelled,
            wrong=int(rng.binomial(labelled, behaviour.wrong)),
        )


GOOD = Behaviour()
PATIENCE = Patience(first=0.5, longest=4.0, call=20.0, drain=1.0)

QUICK = RolloutSpec(
    min_step_s=5.0,
    warm_up_start_s=2.0,
    warm_up_step_s=2.0,
    deadline_s=3600.0,
    rollback_window_s=60.0,
    margins=FixedMargins(errors=0.02, latency_p50=0.5, latency_p99=1.0, accuracy=2.0),
)
"""Steps pass as soon as the evidence is there, and coarse margins need little of it: rollouts of two minutes, for tests
that are not about time."""


def make_controller(
    world: World,
    connection: sqlite3.Connection,
    *,
    journal: Journal | None = None,
    checks: tuple[Check, ...] = (),
    notifier: Notifier | None = None,
    evidence: Evidence | None = None,
    history: History | None = None,
) -> Controller:
    return Controller(
        serving=world,
        routing=world,
        evidence=evidence or world,
        history=history,
        journal=journal or Journal(connection),
        clock=world.clock,
        settings=ControllerSettings(lease_ttl_s=TTL_S),
        patience=PATIENCE,
        checks=checks,
        notifier=notifier,
    )


def make_world(clock: VirtualClock, candidate: Behaviour = GOOD, *, rps: float = 200.0, load_s: float = 3.0) -> World:
    """Model "digits" with version 1 stable and loaded, and versions 2 and 3 to come."""
    world = World(clock, {1: GOOD, 2: candidate, 3: GOOD}, rps=rps, load_s=load_s)
    world.stable["digits"] = 1
    world.loaded.add(("digits", 1))
    return world


@asynccontextmanager
async def running(controller: Controller, world: World) -> AsyncIterator[None]:
    """The controller's loop as a task, ended afterwards. What it raises is raised here, and nothing forbidden was
    asked of the world."""
    task = asyncio.create_task(controller.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    assert world.violations == []


async def until(world: World, controller: Controller, *states: State, limit_s: float = 36_000.0) -> RolloutStatus:
    """Let virtual time pass until the rollout of "digits" is in one of the states."""
    end = world.clock.monotonic() + limit_s
    while (status := controller.status("digits")).state not in states:
        assert world.clock.monotonic() < end, f"still {status.state}: {status.waiting_for or status.reason}"
        await world.clock.sleep(0.5)
    return status


Story = Callable[[World, Controller], Awaitable[None]]


def play(story: Story, candidate: Behaviour = GOOD, *, start: float = 0.0) -> World:
    """A story about a world and its controller, on virtual time; the world as it is afterwards."""

    async def told(clock: VirtualClock) -> World:
        world = make_world(clock, candidate)
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await story(world, controller)
        return world

    return run_virtual(told, start)
