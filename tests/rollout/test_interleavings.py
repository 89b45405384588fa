"""What people and the world may do to a model, in any order: the controller's promises hold throughout.

The machine alone is explored whole in test_machine; here its controller, journal and judge are in the loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.controller import Controller
from rollout.errors import RolloutError
from rollout.journal import Journal, Kind
from rollout.machine import FINAL, Event, Progress, State
from rollout.ports import NOTHING
from rollout.spec import FixedMargins, OnNewVersion, RolloutSpec
from rollout.spec_parts import Gate, ShadowSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, TTL_S, Behaviour, World, make_controller, make_world, running

SPEC = replace(
    QUICK,
    min_step_s=3.0,
    warm_up_start_s=0.0,
    warm_up_step_s=0.0,
    rollback_window_s=20.0,
    unready_grace_s=5.0,
    margins=FixedMargins(errors=0.2, latency_p50=1.0, latency_p99=1.0, accuracy=3.0),
)
GATED = replace(SPEC, shadow=ShadowSpec(share_bp=5000, requests=100), gates=(Gate(0, 2.0), Gate(1), Gate(3, 2.0)))
VERBS = ("pause", "resume", "promote", "abort", "undo", "retry")
ACTIONS = (
    *VERBS,
    *VERBS,
    "start 2",
    "start 3",
    "start 3, replacing",
    "start 1",
    "wait",
    "wait longer",
    "load fails",
    "load works",
    "candidate is down",
    "stable is down",
    "all up",
    "candidate fails",
    "no telemetry",
    "restart",
    "freeze",
)
UNREADY_TOLERANCE_S = 5.5
"""Three polls, a second apart, each counted a turn later; and the turn in which it went down."""


class WatchedWorld(World):
    """Notes what must never be asked of a data plane."""

    down_since: float | None = None
    spec = SPEC

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int] = NOTHING) -> None:
        for model, weight in weights.items():
            candidates = {version for name, version in self.staged if name == model}
            self.forbid(not candidates, "weight for a candidate that is not routable")
            self.forbid(not 0 < weight <= 10_000, f"a weight of {weight}")
            down_s = 0.0 if self.down_since is None else self.clock.monotonic() - self.down_since
            self.forbid(candidates <= self.down and down_s > UNREADY_TOLERANCE_S, "weight for one that is down")
        await super().lease(weights, mirrors)


async def act(world: WatchedWorld, controller: Controller, action: str) -> None:
    clock = world.clock
    match action.split():
        case [verb] if verb in VERBS:
            try:
                status = await getattr(controller, verb)("digits")
            except RolloutError as refusal:
                said = str(refusal)
                assert said
            else:
                if verb == "abort":
                    assert status.weight_bp == 0
        case ["start", version, *rest]:
            policy = OnNewVersion.REPLACE if rest else OnNewVersion.QUEUE
            try:
                spec = replace(world.spec, on_new_version=policy)
                await controller.start("digits", int(version.strip(",")), world.stable["digits"], spec)
            except RolloutError as refusal:
                said = str(refusal)
                assert said
        case ["wait"]:
            await clock.sleep(4.0)
        case ["wait", "longer"]:
            await clock.sleep(25.0)
        case ["load", "fails"]:
            world.refuse_load = {2: "broken", 3: "broken"}
        case ["load", "works"]:
            world.refuse_load = {}
        case ["candidate", "is", "down"]:
            world.down |= {2, 3} - {world.stable["digits"]}
            world.down_since = clock.monotonic() if world.down_since is None else world.down_since
        case ["stable", "is", "down"]:
            world.down.add(world.stable["digits"])
        case ["all", "up"]:
            world.down.clear()
            world.down_since, world.missing = None, ""
            world.versions.update({2: Behaviour(), 3: Behaviour()})
        case ["candidate", "fails"]:
            world.versions.update({version: Behaviour(errors=0.5) for version in {2, 3} - {world.stable["digits"]}})
        case ["no", "telemetry"]:
            world.missing = "nobody answers"
        case ["freeze"]:
            clock.freeze(TTL_S + 5.0)
        case _:
            raise AssertionError(action)
    await clock.sleep(1.2)
    under_way = [s for s in controller.active() if s.state not in (State.PENDING, State.PROMOTED)]
    assert len(under_way) <= 1, "two rollouts of one model are under way"


WORDS = st.lists(st.sampled_from(ACTIONS), min_size=8, max_size=12)
PLAIN = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@settings(PLAIN, max_examples=60)
@given(WORDS)
def test_promises_hold_in_any_order_of_events(actions: list[str]) -> None:
    run_virtual(lambda clock: live(clock, actions, SPEC))


@settings(PLAIN, max_examples=30)
@given(WORDS)
def test_promises_hold_with_a_shadow_step_and_gates(actions: list[str]) -> None:
    run_virtual(lambda clock: live(clock, actions, GATED))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@settings(PLAIN, max_examples=2000)
@given(WORDS, st.sampled_from([SPEC, GATED]))
def test_promises_hold_in_very_many_orders_of_events(actions: list[str], spec: RolloutSpec) -> None:
    run_virtual(lambda clock: live(clock, actions, spec))


async def live(clock: VirtualClock, actions: Sequence[str], spec: RolloutSpec) -> None:
    plain = make_world(clock, rps=100.0, load_s=2.0)
    world = WatchedWorld(clock, plain.versions, stable={"digits": 1}, loaded={("digits", 1)}, rps=100.0, load_s=2.0)
    world.spec = spec
    connection = sqlite3.connect(":memory:")
    todo = ["start 2", "wait", *actions]
    while todo:
        controller = make_controller(world, connection)
        async with running(controller, world):
            await clock.sleep(0.1)
            while todo and (action := todo.pop(0)) != "restart":
                await act(world, controller, action)
    controller = make_controller(world, connection)
    async with running(controller, world):
        await assert_never_stuck(world, controller)
    assert_weights_rose_by_right(connection)


async def assert_never_stuck(world: WatchedWorld, controller: Controller) -> None:
    """When the world is well again, everything that is under way can be brought to an end."""
    await act(world, controller, "all up")
    world.refuse_load = {}
    for _ in range(60):
        open_now = [s for s in controller.active() if s.state not in FINAL]
        if not open_now:
            break
        if Event.ABORT in open_now[0].verbs:
            await controller.abort("digits")
        await world.clock.sleep(5.0)
    assert not [s for s in controller.active() if s.state not in FINAL]
    await world.clock.sleep(3.0)
    assert world.weight("digits") == 0
    assert ("digits", world.stable["digits"]) in world.loaded


def assert_weights_rose_by_right(connection: sqlite3.Connection) -> None:
    """Every rise in the journal was checked, advanced by a verdict that says so, or an operator's word."""
    journal = Journal(connection)
    for row in journal.history("digits"):
        before = Progress()
        for record in journal.read(row.id):
            if record.kind is not Kind.TRANSITION:
                continue
            body: Mapping[str, Any] = record.body
            progress = Progress.from_json(body["progress"])
            if progress.weight_bp > before.weight_bp:
                match Event(body["event"]):
                    case Event.ADVANCE:
                        assert body["verdict"]["decision"] == "advance"
                    case Event.SWAPPED:
                        assert before.state is State.PROMOTING
                    case event:
                        assert event in (Event.CHECKED, Event.RESUME, Event.GATE_OPENED)
                        shown = body["verdict"] is not None and body["verdict"]["decision"] == "advance"
                        assert before.step < 0 or event is Event.RESUME or shown
            before = progress
