"""Shadow steps, gates and freezes in whole rollouts on virtual time."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from rollout.controller import Controller
from rollout.errors import IllegalVerb
from rollout.freeze import FreezeWindow
from rollout.machine import FINAL, DeadlineAction, State
from rollout.spec import RolloutSpec
from rollout.spec_parts import Gate, ShadowSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, TTL_S, Behaviour, World, make_controller, make_world, play, running, until

SHADOW = replace(QUICK, shadow=ShadowSpec(share_bp=2000, requests=400, max_disagreement=0.05))


def users_saw_it(world: World) -> bool:
    return any(weights for _, weights in world.weights_seen)


def test_a_candidate_that_answers_like_stable_passes_the_shadow_step() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SHADOW)
        status = await until(world, controller, State.SHADOW)
        await world.clock.sleep(1.5)
        assert world.mirrors_seen[-1][1] == {"digits": 2000}
        status = controller.status("digits")
        assert (status.weight_bp, status.mirror_bp) == (0, 2000)
        assert "mirrored pairs" in status.waiting_for
        await until(world, controller, State.STEP)
        await world.clock.sleep(1.5)
        assert world.mirrors_seen[-1][1] == {}
        await until(world, controller, State.PROMOTED)

    play(story)


def test_a_candidate_that_answers_otherwise_is_stopped_with_no_user_exposed() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SHADOW)
        status = await until(world, controller, *FINAL)
        assert status.state is State.ROLLED_BACK
        assert status.users_share == 0.0
        assert "differ" in status.reason or "disagree" in status.reason
        assert any(line.startswith("    * agreement: ") for line in controller.explain(1).lines())

    assert not users_saw_it(play(story, Behaviour(differs=0.3)))


def test_a_candidate_that_fails_on_copies_is_stopped_with_no_user_exposed() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SHADOW)
        assert (await until(world, controller, *FINAL)).state is State.ROLLED_BACK

    assert not users_saw_it(play(story, Behaviour(errors=0.2)))


def test_without_pairs_the_shadow_step_holds_and_its_deadline_acts() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.rps = 0.0
        spec = replace(SHADOW, deadline_s=300.0, on_deadline=DeadlineAction.PAUSE)
        await controller.start("digits", 2, 1, spec)
        status = await until(world, controller, State.PAUSED)
        assert status.in_state_s < 2.0
        assert "deadline" in status.reason
        world.rps = 200.0
        await controller.resume("digits")
        await until(world, controller, State.PROMOTED)

    play(story)


def test_a_shadow_step_ends_with_the_lease_when_the_controller_dies() -> None:
    async def test(clock: VirtualClock) -> None:
        world, connection = make_world(clock), sqlite3.connect(":memory:")
        slow = replace(SHADOW, shadow=ShadowSpec(share_bp=2000, requests=10**6))
        async with running(make_controller(world, connection), world) as _:
            controller = make_controller(world, connection)
            await controller.start("digits", 2, 1, slow)
        async with running(controller := make_controller(world, connection), world):
            await until(world, controller, State.SHADOW)
            await clock.sleep(3.0)
            assert world._pairs("digits", 1000.0, clock.now()) is not None
        await clock.sleep(TTL_S + 1.0)
        assert world._pairs("digits", 1000.0, clock.now()) is None
        async with running(controller := make_controller(world, connection), world):
            await clock.sleep(5.0)
            assert controller.status("digits").mirror_bp == 2000

    run_virtual(test)


def test_a_gate_by_hand_waits_for_resume_however_long() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(QUICK, gates=(Gate(1),)))
        status = await until(world, controller, State.GATE)
        assert "penstock rollout resume" in status.waiting_for
        await world.clock.sleep(300.0)
        status = controller.status("digits")
        assert (status.state, status.weight_bp, status.step) == (State.GATE, 1000, 1)
        assert (await controller.resume("digits", by="ada")).granted_bp == 3000
        await until(world, controller, State.PROMOTED)

    play(story)


def test_a_gate_with_a_time_opens_then_and_not_before() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(QUICK, gates=(Gate(0, 60.0), Gate(3, 120.0))))
        first = await until(world, controller, State.GATE)
        assert first.gate_left_s is not None
        assert 55.0 < first.gate_left_s <= 60.0
        assert not users_saw_it(world)
        begun = world.clock.monotonic()
        await until(world, controller, State.STEP)
        assert 58.0 <= world.clock.monotonic() - begun <= 63.0
        await until(world, controller, State.GATE)
        waited = world.clock.monotonic()
        await until(world, controller, State.PROMOTED)
        assert world.clock.monotonic() - waited >= 118.0

    play(story)


def test_harm_at_a_gate_rolls_back() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(QUICK, gates=(Gate(1),)))
        await until(world, controller, State.GATE)
        world.versions[2] = Behaviour(errors=0.3)
        assert (await until(world, controller, *FINAL, limit_s=120.0)).state is State.ROLLED_BACK

    play(story)


def test_a_gate_with_a_time_stays_shut_while_evidence_is_missing() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(QUICK, gates=(Gate(1, 60.0),)))
        await until(world, controller, State.GATE)
        world.missing = "nobody answers"
        await world.clock.sleep(150.0)
        assert controller.status("digits").state is State.GATE
        world.missing = ""
        await until(world, controller, State.PROMOTED)

    play(story)


def test_a_gate_by_hand_has_the_deadline_of_the_spec() -> None:
    async def story(world: World, controller: Controller) -> None:
        spec = replace(QUICK, gates=(Gate(1),), deadline_s=600.0, on_deadline=DeadlineAction.ROLL_BACK)
        await controller.start("digits", 2, 1, spec)
        await until(world, controller, State.GATE)
        assert (await until(world, controller, *FINAL)).state is State.ROLLED_BACK

    play(story)


# Virtual time begins in 2027, on a Friday (2027-01-15) at 08:00 UTC.
NOON = FreezeWindow(frozenset({4}), 12 * 60, 12 * 60 + 10)
TO_NOON_S = 4 * 3600.0


def frozen(spec: RolloutSpec) -> RolloutSpec:
    return replace(spec, freeze=(NOON,))


def test_a_rollout_does_not_start_in_a_freeze_and_starts_after_it() -> None:
    async def story(world: World, controller: Controller) -> None:
        status = await controller.start("digits", 2, 1, frozen(QUICK))
        assert status.state is State.PENDING
        assert "freeze" in status.waiting_for
        await world.clock.sleep(60.0)
        assert controller.status("digits").state is State.PENDING
        assert ("load", "digits", 2) not in [(name, model, version) for name, _, model, version in world.calls]
        await until(world, controller, State.PROMOTED)
        assert world.clock.monotonic() > TO_NOON_S + 600.0

    play(story, start=TO_NOON_S + 30.0)


def test_nothing_advances_in_a_freeze_and_the_deadline_stands_still() -> None:
    async def story(world: World, controller: Controller) -> None:
        spec = replace(frozen(QUICK), min_step_s=100.0, deadline_s=400.0, on_deadline=DeadlineAction.ROLL_BACK)
        await controller.start("digits", 2, 1, spec)
        await until(world, controller, State.STEP)
        await world.clock.sleep(500.0)
        status = controller.status("digits")
        assert (status.state, status.step) == (State.STEP, 1)
        assert status.frozen_until is not None
        await until(world, controller, State.PROMOTED)

    play(story, start=TO_NOON_S - 30.0)


def test_harm_rolls_back_in_a_freeze() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(frozen(QUICK), min_step_s=100.0))
        await until(world, controller, State.STEP)
        await world.clock.sleep(120.0)
        world.versions[2] = Behaviour(errors=0.3)
        assert (await until(world, controller, *FINAL, limit_s=120.0)).state is State.ROLLED_BACK

    play(story, start=TO_NOON_S - 30.0)


def test_an_operator_can_promote_in_a_freeze_and_cannot_open_a_gate() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(frozen(QUICK), gates=(Gate(0),)))
        await until(world, controller, State.GATE)
        await world.clock.sleep(60.0)
        with pytest.raises(IllegalVerb, match="a freeze of its spec is in force: promote overrules it"):
            await controller.resume("digits")
        await controller.promote("digits", by="ada", reason="fix")
        await until(world, controller, State.PROMOTED)

    play(story, start=TO_NOON_S - 30.0)
