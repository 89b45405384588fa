"""Forecasts that a running controller gives: of every step as it starts, and of the present one at the traffic seen."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from rollout.controller import Controller
from rollout.errors import UndecidableStep
from rollout.foresight import EVERY_S
from rollout.journal import Journal
from rollout.machine import FINAL, State
from rollout.outlook import Traffic
from rollout.settings import ControllerSettings
from rollout.spec import OnUndecidable, RolloutSpec
from rollout.spec_parts import ShadowSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import PATIENCE, QUICK, TTL_S, Behaviour, World, make_world, running, until

BUSY = Traffic(seconds=300.0, requests=60_000, errors=60)


class Told:
    """A model's traffic as a test says it is."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic

    async def of(self, model: str, version: int) -> Traffic:
        return self.traffic


@contextmanager
def controller_of(world: World, traffic: Traffic) -> Iterator[Controller]:
    connection = sqlite3.connect(":memory:")
    yield Controller(
        serving=world,
        routing=world,
        evidence=world,
        journal=Journal(connection),
        clock=world.clock,
        settings=ControllerSettings(lease_ttl_s=TTL_S),
        patience=PATIENCE,
        traffic=Told(traffic),
    )
    connection.close()


def test_what_is_expected_is_answered_at_the_start_and_kept_in_the_history() -> None:
    async def test(clock: VirtualClock) -> None:
        world = make_world(clock)
        with controller_of(world, replace(BUSY, requests=300, errors=0)) as controller:
            started = await controller.start("digits", 2, 1, RolloutSpec.default())
            assert started.outlook is not None
            assert [step.step for step in started.outlook.steps] == [1, 2, 3]
            assert started.outlook.warnings
            async with running(controller, world):
                await until(world, controller, State.STEP)
            notes = controller.explain(started.rollout_id).chapters[0].notes
            assert notes[0].startswith("1 requests a second in the last 300 s: a candidate like stable is expected")
            assert notes[1:] == tuple(f"warning: {words}" for words in started.outlook.warnings)

    run_virtual(test)


def test_a_spec_may_refuse_to_start_what_cannot_be_decided() -> None:
    spec = replace(RolloutSpec.default(), on_undecidable=OnUndecidable.REFUSE)

    async def test(clock: VirtualClock) -> None:
        for traffic in (replace(BUSY, requests=300, errors=0), Traffic(seconds=300.0)):
            with controller_of(make_world(clock), traffic) as controller:
                with pytest.raises(UndecidableStep, match="on_undecidable: refuse, and at the present traffic"):
                    await controller.start("digits", 2, 1, spec)
                assert controller.history("digits") == []
        with controller_of(make_world(clock), BUSY) as controller:
            assert (await controller.start("digits", 2, 1, spec)).state is State.LOADING

    run_virtual(test)


def test_the_present_step_is_foreseen_from_the_traffic_in_it() -> None:
    """200 requests a second come, whatever was expected: the forecast at 20 s is near what then happens."""

    async def test(clock: VirtualClock) -> None:
        world = make_world(clock)
        with controller_of(world, Traffic(seconds=300.0)) as controller:
            async with running(controller, world):
                started = await controller.start("digits", 2, 1, QUICK)
                assert started.forecast is None
                begun = (await until(world, controller, State.STEP)).since
                await clock.sleep(20.0)
                status = controller.status("digits")
                assert status.forecast is not None
                assert status.forecast.pass_s is not None
                assert "a regression of the margin's size rolls back within" in status.forecast.words
                told = controller.explain(status.rollout_id).lines()
                assert any(line.startswith("now: may pass in ") for line in told)
                while controller.status("digits").step == 1:
                    await clock.sleep(1.0)
                assert 20.0 + status.forecast.pass_s == pytest.approx(clock.now() - begun, rel=0.6)
                ended = await until(world, controller, *FINAL)
        assert ended.state is State.PROMOTED
        assert ended.forecast is None

    run_virtual(test)


def test_it_is_made_anew_every_few_seconds_only() -> None:
    async def test(clock: VirtualClock) -> None:
        world = make_world(clock)
        with controller_of(world, BUSY) as controller:
            async with running(controller, world):
                await controller.start("digits", 2, 1, RolloutSpec.default())
                await until(world, controller, State.STEP)
                await clock.sleep(10.0)
                first = controller.status("digits").forecast
                assert controller.status("digits").forecast is first
                await clock.sleep(EVERY_S + 1.0)
                assert controller.status("digits").forecast is not first

    run_virtual(test)


def test_a_shadow_step_is_foreseen_by_the_pairs_that_come() -> None:
    spec = replace(QUICK, shadow=ShadowSpec(requests=4000))

    async def test(clock: VirtualClock) -> None:
        # In this world only the candidate ever fails alone.
        world = make_world(clock, Behaviour(errors=0.0))
        with controller_of(world, BUSY) as controller:
            async with running(controller, world):
                await controller.start("digits", 2, 1, spec)
                begun = (await until(world, controller, State.SHADOW)).since
                await clock.sleep(40.0)
                foreseen = controller.status("digits").forecast
                assert foreseen is not None
                assert foreseen.pass_s is not None
                await until(world, controller, State.STEP, limit_s=600.0)
                assert 40.0 + foreseen.pass_s == pytest.approx(clock.now() - begun, rel=0.2)

    run_virtual(test)


def test_without_traffic_in_the_step_it_says_that_no_verdict_is_possible() -> None:
    async def test(clock: VirtualClock) -> None:
        world = make_world(clock, rps=0.0)
        with controller_of(world, Traffic(seconds=300.0)) as controller:
            async with running(controller, world):
                await controller.start("digits", 2, 1, QUICK)
                await until(world, controller, State.STEP)
                await clock.sleep(20.0)
                foreseen = controller.status("digits").forecast
                assert foreseen is not None
                assert foreseen.pass_s is None
                assert foreseen.words == "no verdict is possible: 10 % of 0 requests a second"

    run_virtual(test)
