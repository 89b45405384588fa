"""What operators may say, at every point of a rollout, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rollout.controller import Controller
from rollout.errors import IllegalVerb, NoRollout, NothingToRollOut, RolloutActive
from rollout.machine import State
from rollout.report import RolloutStatus
from rollout.spec import OnNewVersion, RolloutSpec
from tests.rollout.world import QUICK, Behaviour, World, play, until

SLOW = replace(QUICK, min_step_s=300.0)
"""Stays in its first step for as long as these tests look."""


def test_pause_keeps_the_weight_and_resume_goes_on() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, QUICK)
        await until(world, controller, State.STEP)
        paused = await controller.pause("digits", by="ada", reason="release freeze")
        assert paused.state is State.PAUSED
        assert paused.reason == "pause by ada: release freeze"
        await world.clock.sleep(600.0)
        assert world.weight("digits") == 1000
        await controller.resume("digits", by="ada")
        await until(world, controller, State.PROMOTED)

    play(story)


def test_a_paused_rollout_is_still_protected_from_harm() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SLOW)
        await until(world, controller, State.STEP)
        await controller.pause("digits")
        world.versions[2] = Behaviour(errors=0.5)
        status = await until(world, controller, State.ROLLED_BACK)
        assert "errors" in status.reason

    play(story)


def test_promote_skips_the_judgement_and_is_recorded_as_an_operators_word() -> None:
    async def story(world: World, controller: Controller) -> None:
        status = await controller.start("digits", 2, 1, SLOW)
        await until(world, controller, State.STEP)
        await controller.promote("digits", by="ada", reason="hotfix")
        status = await until(world, controller, State.PROMOTED)
        assert world.stable["digits"] == 2
        assert status.reason == "promote by ada: hotfix"
        assert "    an operator's word: no evidence was asked for" in controller.explain(status.rollout_id).lines()

    play(story)


@pytest.mark.parametrize("state", [State.LOADING, State.STEP, State.BAKING, State.PAUSED])
def test_abort_takes_the_candidate_out_at_once(state: State) -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SLOW if state is State.STEP else QUICK)
        if state is State.PAUSED:
            await until(world, controller, State.STEP)
            await controller.pause("digits")
        await until(world, controller, state)
        said_at = world.clock.monotonic()
        await controller.abort("digits", by="ada")
        status = await until(world, controller, State.ABORTED)
        assert status.weight_bp == world.weight("digits") == 0
        assert all(not weights for at, weights in world.weights_seen if at > said_at)
        await world.clock.sleep(5.0)
        assert world.loaded == {("digits", 1)}
        assert world.stable["digits"] == 1

    play(story)


def test_abort_acts_before_the_next_turn() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SLOW)
        await until(world, controller, State.STEP)
        await world.clock.sleep(1.3)
        said_at = world.clock.monotonic()
        await controller.abort("digits")
        await world.clock.sleep(0.01)
        at, weights = world.weights_seen[-1]
        assert at == pytest.approx(said_at)
        assert weights == {}

    play(story)


def test_abort_while_the_promotion_is_under_way_restores_the_old_version() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SLOW)
        await until(world, controller, State.STEP)
        world.broken["promote"] = ConnectionError("envoy does not answer")
        await controller.promote("digits")
        await world.clock.sleep(5.0)
        status = controller.status("digits")
        assert status.state is State.PROMOTING
        assert status.troubles[0].message == "envoy does not answer"
        assert status.troubles[0].attempts >= 3
        await controller.abort("digits")
        del world.broken["promote"]
        await until(world, controller, State.ABORTED)
        assert world.stable["digits"] == 1

    play(story)


def test_undo_moves_back_at_once_and_loads_nothing() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, QUICK)
        await until(world, controller, State.PROMOTED)
        before, said_at = len(world.calls), world.clock.monotonic()
        await controller.undo("digits", by="ada")
        status = await until(world, controller, State.ROLLED_BACK)
        assert world.stable["digits"] == 1
        assert [call[0] for call in world.calls[before:]] == ["promote", "withdraw"]
        assert world.clock.monotonic() - said_at <= 1.0
        assert status.reason == "undo by ada"

    play(story)


def test_undo_loads_the_old_version_when_it_is_gone_in_spite_of_the_window() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, QUICK)
        await until(world, controller, State.PROMOTED)
        world.loaded.discard(("digits", 1))
        await controller.undo("digits")
        await until(world, controller, State.ROLLED_BACK)
        assert world.stable["digits"] == 1

    play(story)


def test_undo_after_the_window_is_refused_with_what_to_do() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, QUICK)
        await until(world, controller, State.PROMOTED)
        await world.clock.sleep(70.0)
        with pytest.raises(IllegalVerb, match="rollback window is closed"):
            await controller.undo("digits")

    play(story)


def test_retry_starts_a_new_rollout_of_the_same_version() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.refuse_load[2] = "out of memory"
        first = await controller.start("digits", 2, 1, QUICK)
        await until(world, controller, State.FAILED)
        world.refuse_load.clear()
        second = await controller.retry("digits")
        assert second.rollout_id != first.rollout_id
        await until(world, controller, State.PROMOTED)
        assert [status.state for status in controller.history("digits")] == [State.PROMOTED, State.FAILED]

    play(story)


def test_verbs_that_make_no_sense_say_which_do() -> None:
    async def story(world: World, controller: Controller) -> None:
        with pytest.raises(NoRollout, match="digits has had no rollout yet"):
            await controller.pause("digits")
        with pytest.raises(NothingToRollOut, match="version 1 of digits is stable already"):
            await controller.start("digits", 1, 1)
        await controller.start("digits", 2, 1, SLOW)
        with pytest.raises(RolloutActive, match="being rolled out already"):
            await controller.start("digits", 2, 1)
        await until(world, controller, State.STEP)
        with pytest.raises(IllegalVerb, match=r"cannot resume a rollout that is step\. Possible now: pause, promote"):
            await controller.resume("digits")
        with pytest.raises(IllegalVerb, match="not promoted yet: abort takes the candidate back"):
            await controller.undo("digits")
        with pytest.raises(IllegalVerb, match="cannot retry"):
            await controller.retry("digits")
        with pytest.raises(NoRollout, match="no rollout 99"):
            controller.explain(99)

    play(story)


def test_a_second_version_waits_its_turn_and_starts_from_what_came_of_the_first() -> None:
    async def story(world: World, controller: Controller) -> None:
        first = await controller.start("digits", 2, 1, QUICK)
        second = await controller.start("digits", 3, 1, QUICK)
        assert second.state is State.PENDING
        assert controller.status("digits").rollout_id == first.rollout_id
        while not (status := controller.rollout(second.rollout_id)).final:
            await world.clock.sleep(1.0)
        assert controller.rollout(first.rollout_id).state is State.PROMOTED
        assert (status.state, status.stable) == (State.PROMOTED, 2)
        assert world.stable["digits"] == 3

    play(story)


def test_a_waiting_version_starts_from_the_old_stable_when_the_first_was_rolled_back() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, QUICK)
        second = await controller.start("digits", 3, 1, QUICK)
        while (status := controller.rollout(second.rollout_id)).state is not State.STEP:
            await world.clock.sleep(1.0)
        assert status.stable == 1

    play(story, Behaviour(errors=0.5))


def test_a_second_version_replaces_the_first_when_the_spec_says_so() -> None:
    async def story(world: World, controller: Controller) -> None:
        first = await controller.start("digits", 2, 1, replace(SLOW, on_new_version=OnNewVersion.REPLACE))
        await until(world, controller, State.STEP)
        second = await controller.start("digits", 3, 1, QUICK)
        await until(world, controller, State.PROMOTED)
        ended = controller.rollout(first.rollout_id)
        assert (ended.state, ended.reason) == (State.ABORTED, "abort by an operator: replaced by version 3")
        assert controller.status("digits").rollout_id == second.rollout_id

    play(story)


def test_a_second_version_is_refused_when_the_spec_says_so() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(SLOW, on_new_version=OnNewVersion.REFUSE))
        with pytest.raises(RolloutActive, match="on_new_version: refuse"):
            await controller.start("digits", 3, 1)
        assert len(controller.history("digits")) == 1

    play(story)


def test_watch_tells_every_turn_until_the_end() -> None:
    async def story(world: World, controller: Controller) -> None:
        started = await controller.start("digits", 2, 1, QUICK)
        seen: list[RolloutStatus] = [status async for status in controller.watch(started.rollout_id)]
        assert seen[-1].state is State.PROMOTED
        assert len(seen) >= 20
        shares = [status.weight_bp for status in seen]
        assert shares == sorted(shares)
        judged = [status for status in seen if status.metrics]
        assert judged
        assert all(
            0.0 <= m.toward_advance <= 1.0 and 0.0 <= m.toward_rollback <= 1.0 for s in judged for m in s.metrics
        )

    play(story)


def test_going_back_to_an_old_version_never_unloads_it() -> None:
    async def story(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, replace(QUICK, rollback_window_s=5000.0))
        await until(world, controller, State.PROMOTED)
        await controller.start("digits", 1, 2, replace(QUICK, rollback_window_s=5.0))
        await until(world, controller, State.PROMOTED)
        await world.clock.sleep(30.0)
        assert world.stable["digits"] == 1
        assert world.loaded == {("digits", 1)}
        assert controller.active() == []

    play(story)


def test_undo_twice_goes_back_two_versions() -> None:
    async def story(world: World, controller: Controller) -> None:
        spec: RolloutSpec = replace(QUICK, rollback_window_s=5000.0)
        for candidate, stable in ((2, 1), (3, 2)):
            await controller.start("digits", candidate, stable, spec)
            await until(world, controller, State.PROMOTED)
        for expected in (2, 1):
            status = await controller.undo("digits")
            while not controller.rollout(status.rollout_id).final:
                await world.clock.sleep(0.5)
            assert world.stable["digits"] == expected
        with pytest.raises(IllegalVerb, match="cannot undo a rollout that is rolled_back"):
            await controller.undo("digits")

    play(story)
