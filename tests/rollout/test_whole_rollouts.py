"""Whole rollouts on virtual time: the real controller, machine, journal and judge against made-up traffic."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest

from rollout.machine import DeadlineAction, State
from rollout.performer import Checked
from rollout.ports import RouteRefused
from rollout.report import RolloutStatus
from rollout.spec import RolloutSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import GOOD, QUICK, Behaviour, World, make_controller, make_world, running, until


def roll(
    candidate: Behaviour,
    spec: RolloutSpec,
    *states: State,
    rps: float = 200.0,
    missing: str = "",
    limit_s: float = 36e3,
) -> tuple[RolloutStatus, World]:
    """Run one rollout to one of the states."""

    async def test(clock: VirtualClock) -> tuple[RolloutStatus, World]:
        world = make_world(clock, candidate, rps=rps)
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, spec)
            if missing:
                await until(world, controller, State.STEP)
                world.missing = missing
            status = await until(world, controller, *states, limit_s=limit_s)
            return status, world

    return run_virtual(test)


def steps_of(world: World) -> list[int]:
    """The different weights published, in order."""
    weights = [seen.get("digits", 0) for _, seen in world.weights_seen]
    return [b for a, b in zip([-1, *weights], weights, strict=False) if a != b]


def test_an_identical_version_goes_through_10_and_30_to_all() -> None:
    status, world = roll(GOOD, RolloutSpec.default(), State.PROMOTED, State.ROLLED_BACK)
    assert status.state is State.PROMOTED
    assert steps_of(world)[:4] == [0, 1000, 3000, 9500]
    assert world.stable["digits"] == 2
    assert status.users_share == 1.0


@pytest.mark.parametrize(
    ("candidate", "word"),
    [
        (Behaviour(wrong=0.9), "accuracy"),
        (Behaviour(errors=0.10), "errors"),
        (Behaviour(median_us=8000.0), "latency"),
    ],
    ids=["shuffled labels", "failing", "slow"],
)
def test_a_worse_version_is_rolled_back_for_what_is_wrong_with_it(candidate: Behaviour, word: str) -> None:
    status, world = roll(candidate, RolloutSpec.default(), State.PROMOTED, State.ROLLED_BACK)
    assert status.state is State.ROLLED_BACK
    assert word in status.reason
    assert world.weight("digits") == 0
    assert ("digits", 2) not in world.staged
    assert world.stable["digits"] == 1


def test_rollback_sets_weight_0_before_it_changes_routes() -> None:
    _, world = roll(Behaviour(errors=0.5), QUICK, State.ROLLED_BACK)
    withdrawn = next(at for name, at, _, _ in world.calls if name == "withdraw")
    last_exposed = max(at for at, weights in world.weights_seen if weights.get("digits"))
    first_safe = min(at for at, weights in world.weights_seen if at > last_exposed and not weights)
    assert first_safe <= withdrawn


@pytest.mark.parametrize(
    ("action", "state"), [(DeadlineAction.PAUSE, State.PAUSED), (DeadlineAction.ROLL_BACK, State.ROLLED_BACK)]
)
def test_without_traffic_a_step_holds_until_its_deadline(action: DeadlineAction, state: State) -> None:
    spec = replace(QUICK, deadline_s=600.0, on_deadline=action)
    status, _ = roll(GOOD, spec, state, State.PROMOTED, rps=0.0)
    assert status.state is state
    assert "deadline" in status.reason


def test_without_traffic_and_with_action_hold_it_goes_on_holding_and_says_so() -> None:
    async def test(clock: VirtualClock) -> RolloutStatus:
        world = make_world(clock, rps=0.0)
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, replace(QUICK, deadline_s=600.0))
            await clock.sleep(1200.0)
            return controller.status("digits")

    status = run_virtual(test)
    assert status.state is State.STEP
    assert status.overdue
    assert status.weight_bp == 1000


def test_without_telemetry_nothing_advances_and_nothing_is_rolled_back() -> None:
    spec = replace(QUICK, deadline_s=300.0, on_deadline=DeadlineAction.PAUSE)
    status, world = roll(Behaviour(errors=0.5), spec, State.PAUSED, State.ROLLED_BACK, missing="scrape failed")
    assert status.state is State.PAUSED
    assert "scrape failed" in status.reason
    assert max(steps_of(world)) == 1000


def test_a_version_that_cannot_be_loaded_fails_with_the_servers_reason_and_no_traffic() -> None:
    async def test(clock: VirtualClock) -> tuple[RolloutStatus, World]:
        world = make_world(clock)
        world.refuse_load[2] = "onnxruntime: invalid graph"
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            return await until(world, controller, State.FAILED), world

    status, world = run_virtual(test)
    assert status.reason == "onnxruntime: invalid graph"
    assert steps_of(world) == [0]


def test_a_failed_check_ends_the_rollout_before_any_user_is_exposed() -> None:
    async def test(clock: VirtualClock) -> tuple[RolloutStatus, World]:
        async def breaks_the_contract(model: str, stable: int, candidate: int) -> Checked:
            return Checked(f"{model}.{candidate} drops output `label` of version {stable}")

        world = make_world(clock)
        controller = make_controller(world, sqlite3.connect(":memory:"), checks=(breaks_the_contract,))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            return await until(world, controller, State.FAILED), world

    status, world = run_virtual(test)
    assert status.reason == "digits.2 drops output `label` of version 1"
    assert steps_of(world) == [0]


def test_a_candidate_that_cannot_be_routed_fails_with_the_reason_at_once() -> None:
    async def test(clock: VirtualClock) -> tuple[RolloutStatus, float]:
        world = make_world(clock)
        world.broken["stage"] = RouteRefused("output `label` is missing")
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            return await until(world, controller, State.FAILED), clock.monotonic()

    status, ended_at = run_virtual(test)
    assert status.reason == "output `label` is missing"
    assert ended_at < 10.0


def test_the_old_version_is_unloaded_when_the_rollback_window_closes() -> None:
    async def test(clock: VirtualClock) -> World:
        world = make_world(clock)
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, State.PROMOTED)
            await clock.sleep(50.0)
            assert ("digits", 1) in world.loaded
            await clock.sleep(20.0)
        return world

    world = run_virtual(test)
    assert world.loaded == {("digits", 2)}


def test_what_came_between_two_rollouts_is_evidence_in_neither() -> None:
    """Of two in a row, loaded within a turn: the first tick of the second is no longer than any other."""

    async def test(clock: VirtualClock) -> list[float]:
        world = make_world(clock, load_s=0.0)
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, State.STEP)
            await clock.sleep(5.0)
            await controller.abort("digits")
            await until(world, controller, State.ABORTED)
            await clock.sleep(500.3)
            second = await controller.start("digits", 3, 1, QUICK)
            await until(world, controller, State.STEP)
            await clock.sleep(5.0)
        records = [json.loads(line) for line in controller.journal(second.rollout_id)][1:]
        return [record["body"]["s"] for record in records if record["kind"] == "tick"]

    assert max(run_virtual(test)) <= 2.0
