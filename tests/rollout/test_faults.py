"""Trouble around the controller: it holds, says so, tries again, and never leaves a candidate unattended."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from rollout.controller import Controller
from rollout.journal import Journal, JournalError, Record
from rollout.machine import State
from rollout.ports import Tick
from rollout.report import RolloutStatus
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import (
    PATIENCE,
    QUICK,
    TTL_S,
    Behaviour,
    Story,
    World,
    make_controller,
    make_world,
    play,
    running,
    until,
)

SLOW = replace(QUICK, min_step_s=3000.0)
"""Stays in its first step."""


def play_in_a_step(story: Story) -> None:
    async def in_a_step(world: World, controller: Controller) -> None:
        await controller.start("digits", 2, 1, SLOW)
        await until(world, controller, State.STEP)
        await world.clock.sleep(5.0)
        await story(world, controller)

    play(in_a_step)


def troubles(status: RolloutStatus) -> dict[str, str]:
    return {trouble.where: trouble.message for trouble in status.troubles}


def test_after_a_freeze_no_weight_is_sent_before_a_fresh_tick_was_judged() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.clock.freeze(TTL_S + 10.0)
        thawed_at = world.clock.monotonic()
        assert world.weight("digits") == 0
        await world.clock.sleep(5.0)
        sent = [at for at, weights in world.weights_seen if at >= thawed_at and weights]
        assert sent[0] > thawed_at + 0.9, "the old weight was sent before anybody looked"
        assert world.weight("digits") == 1000
        await controller.pause("digits")
        notes = [note for chapter in controller.explain(1).chapters for note in chapter.notes]
        assert "the controller was away for" in notes[0]

    play_in_a_step(story)


def test_a_candidate_that_broke_during_a_freeze_is_taken_back() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.clock.freeze(TTL_S + 10.0)
        world.versions[2] = Behaviour(errors=1.0)
        status = await until(world, controller, State.ROLLED_BACK, limit_s=30.0)
        assert "error" in status.reason

    play_in_a_step(story)


def test_after_a_freeze_without_telemetry_the_weight_stays_0() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.missing = "prometheus is away"
        world.clock.freeze(TTL_S + 10.0)
        await world.clock.sleep(30.0)
        assert world.weight("digits") == 0
        assert controller.status("digits").granted_bp == 1000
        world.missing = ""
        await world.clock.sleep(3.0)
        assert world.weight("digits") == 1000

    play_in_a_step(story)


def test_a_restart_within_the_lease_makes_no_dip() -> None:
    async def test(clock: VirtualClock) -> None:
        world, connection = make_world(clock), sqlite3.connect(":memory:")
        first = make_controller(world, connection)
        async with running(first, world):
            await first.start("digits", 2, 1, SLOW)
            await until(world, first, State.STEP)
            await clock.sleep(5.0)
        before = len(world.weights_seen)
        await clock.sleep(3.0)
        second = make_controller(world, connection)
        async with running(second, world):
            for _ in range(50):
                assert world.weight("digits") == 1000
                await clock.sleep(0.1)
        assert len(world.weights_seen) > before

    run_virtual(test)


@pytest.mark.parametrize("missing", ["", "prometheus is away"])
def test_a_restart_after_the_lease_sends_no_weight_before_a_fresh_tick_was_judged(missing: str) -> None:
    async def test(clock: VirtualClock) -> None:
        world, connection = make_world(clock), sqlite3.connect(":memory:")
        first = make_controller(world, connection)
        async with running(first, world):
            await first.start("digits", 2, 1, SLOW)
            await until(world, first, State.STEP)
        await clock.sleep(TTL_S + 5.0)
        world.missing = missing
        back_at = clock.monotonic()
        async with running(make_controller(world, connection), world):
            await clock.sleep(5.0)
        sent = [at for at, weights in world.weights_seen if at >= back_at and weights]
        assert bool(sent) == (not missing)
        assert all(at > back_at + 0.9 for at in sent)

    run_virtual(test)


class FlakyJournal(Journal):
    """The real journal on a disk that is full for a while."""

    full = False

    def append(self, records: Sequence[Record]) -> int:
        if self.full:
            raise JournalError("cannot write the rollout journal: disk full")
        return super().append(records)


def test_a_journal_that_cannot_be_written_stops_the_lease_and_heals() -> None:
    async def test(clock: VirtualClock) -> None:
        world, connection = make_world(clock), sqlite3.connect(":memory:")
        journal = FlakyJournal(connection)
        controller = make_controller(world, connection, journal=journal)
        async with running(controller, world):
            await controller.start("digits", 2, 1, SLOW)
            await until(world, controller, State.STEP)
            journal.full = True
            await clock.sleep(TTL_S + 5.0)
            assert world.weight("digits") == 0
            assert "disk full" in troubles(controller.status("digits"))["journal"]
            with pytest.raises(JournalError, match="disk full"):
                await controller.promote("digits")
            assert controller.status("digits").state is State.STEP
            journal.full = False
            await clock.sleep(5.0)
            assert world.weight("digits") == 1000
            assert "journal" not in troubles(controller.status("digits"))

    run_virtual(test)


def test_a_data_plane_that_does_not_answer_is_told_and_tried_again() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.broken["lease"] = ConnectionError("no Envoy is connected")
        await world.clock.sleep(5.0)
        assert troubles(controller.status("digits"))["lease"] == "no Envoy is connected"
        del world.broken["lease"]
        await world.clock.sleep(2.0)
        assert troubles(controller.status("digits")) == {}

    play_in_a_step(story)


def test_an_evidence_source_that_fails_or_hangs_is_missing_data() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.broken["read"] = RuntimeError("stats page is not parseable")
        await world.clock.sleep(5.0)
        assert "stats page is not parseable" in controller.status("digits").waiting_for
        del world.broken["read"]
        world.read_s = 1e6
        await world.clock.sleep(20.0)
        status = controller.status("digits")
        assert "no answer in 3 s" in status.waiting_for
        assert (status.state, world.weight("digits")) == (State.STEP, 1000)

    play_in_a_step(story)


def test_a_candidate_that_is_not_ready_gets_no_weight_until_it_is_back() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.down.add(2)
        await world.clock.sleep(5.0)
        status = controller.status("digits")
        assert (status.withheld, status.weight_bp, status.granted_bp) == (True, 0, 1000)
        assert world.weight("digits") == 0
        world.down.clear()
        await world.clock.sleep(3.0)
        assert world.weight("digits") == 1000

    play_in_a_step(story)


def test_a_candidate_that_stays_away_is_rolled_back() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.down.add(2)
        status = await until(world, controller, State.ROLLED_BACK, limit_s=60.0)
        assert status.reason == "version 2 was not ready for 30 s, stable was"

    play_in_a_step(story)


def test_a_server_that_is_away_as_a_whole_is_nobodys_fault() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.down |= {1, 2}
        await world.clock.sleep(120.0)
        status = controller.status("digits")
        assert (status.state, status.weight_bp) == (State.STEP, 0)
        world.down.clear()
        await world.clock.sleep(3.0)
        assert world.weight("digits") == 1000

    play_in_a_step(story)


def test_a_withdrawal_is_tried_until_it_works_and_the_weight_is_0_meanwhile() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.broken["withdraw"] = ConnectionError("no Envoy is connected")
        await controller.abort("digits")
        await world.clock.sleep(60.0)
        status = controller.status("digits")
        assert status.state is State.ROLLING_BACK
        assert troubles(status)["withdraw"] == "no Envoy is connected"
        assert world.weight("digits") == 0
        attempts = [at for name, at, _, _ in world.calls if name == "withdraw"]
        pauses = [b - a for a, b in pairwise(attempts)]
        assert pauses[:3] == pytest.approx([0.5, 1.0, 2.0])
        assert max(pauses) == pytest.approx(PATIENCE.longest)
        del world.broken["withdraw"]
        await until(world, controller, State.ABORTED, limit_s=10.0)

    play_in_a_step(story)


def test_a_slow_load_holds_up_nobody_else() -> None:
    async def story(world: World, controller: Controller) -> None:
        world.load_s = 1e6
        world.stable["other"] = 1
        await controller.start("other", 2, 1, SLOW)
        before = len(world.weights_seen)
        await world.clock.sleep(30.0)
        assert len(world.weights_seen) - before >= 29
        assert controller.status("other").state is State.LOADING
        await controller.abort("other")
        await world.clock.sleep(1.0)
        assert controller.status("other").state is State.ABORTED

    play_in_a_step(story)


def test_trouble_in_one_rollouts_evidence_takes_its_own_weight_only() -> None:
    class Odd(World):
        """Gives one model counts that are not even numbers, as a broken source might."""

        async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
            ticks = dict(await super().read(models))
            if "odd" in ticks and self.rps != 200.0:
                broken: Any = {1: None, 2: None}
                ticks["odd"] = replace(ticks["odd"], arms=broken, missing="")
            return ticks

    async def test(clock: VirtualClock) -> None:
        plain = make_world(clock)
        world = Odd(clock, plain.versions, stable={"digits": 1, "odd": 1}, loaded={("digits", 1), ("odd", 1)})
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            for model in ("digits", "odd"):
                await controller.start(model, 2, 1, SLOW)
            await clock.sleep(10.0)
            assert (world.weight("digits"), world.weight("odd")) == (1000, 1000)
            world.rps = 100.0
            await clock.sleep(3.0)
            assert (world.weight("digits"), world.weight("odd")) == (1000, 0)
            assert "judge" in troubles(controller.status("odd"))

    run_virtual(test)


def test_a_listener_that_fails_stops_nothing() -> None:
    async def test(clock: VirtualClock) -> list[State]:
        heard: list[State] = []

        def listener(status: RolloutStatus) -> None:
            heard.append(status.state)
            raise RuntimeError("webhook is down")

        world = make_world(clock)
        controller = Controller(
            serving=world,
            routing=world,
            evidence=world,
            journal=Journal(sqlite3.connect(":memory:")),
            clock=clock,
            patience=PATIENCE,
            on_change=listener,
        )
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, State.PROMOTED)
        return heard

    heard = run_virtual(test)
    assert heard == ["pending", "loading", "checking", "step", "step", "baking", "promoting", "promoted"]
