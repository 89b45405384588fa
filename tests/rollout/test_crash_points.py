"""The controller is killed at every write of its journal, before and after the commit, and comes back.

Whatever the point, the rollout takes the same way to the same end, no weight is published that the journal had not
granted before and none is granted without evidence, what was judged is judged on bit for bit, and the evidence is that
of the rollout which nobody killed: the same journal up to the death, and the same ticks after the return.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from rollout.journal import Journal, Kind, Record, RolloutRow
from rollout.machine import FINAL, Event, Happening, Progress, State
from rollout.replay import replay
from rollout.run import CHECKPOINT_TICKS, Run
from rollout.spec import FixedMargins, RolloutSpec
from rollout.spec_parts import Gate, ShadowSpec
from tests.rollout.promises import course, unfounded_rises
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, TTL_S, Behaviour, World, make_controller, make_world

SPEC = replace(
    QUICK,
    min_step_s=3.0,
    warm_up_start_s=0.0,
    warm_up_step_s=0.0,
    rollback_window_s=3.0,
    margins=FixedMargins(errors=0.05, latency_p50=0.5, latency_p99=1.0, accuracy=2.0),
)
"""Coarse margins: a rollout of some tens of seconds, so that every write of it can be the last."""
GATED = replace(SPEC, shadow=ShadowSpec(share_bp=5000, requests=300), gates=(Gate(0, 2.0), Gate(1, 3.0)))
BAD = Behaviour(errors=0.01)
GOOD = Behaviour(errors=0.0)


class Killed(BaseException):
    """SIGKILL, as seen from inside: nothing after it runs."""


class MortalJournal(Journal):
    """Counts its writes and dies at the nth, before or after the commit; dead, it writes no more."""

    def __init__(self, connection: sqlite3.Connection, *, die_at: int, committed: bool) -> None:
        super().__init__(connection)
        self.writes = 0
        self.dead = False
        self.on_death: Callable[[], object] = lambda: None
        self._die_at = die_at
        self._committed = committed

    def append(self, records: Sequence[Record]) -> int:
        return self._write(lambda: super(MortalJournal, self).append(records))

    def open_rollout(self, *, model: str, candidate: int, stable: int, spec: Mapping[str, Any], at: float) -> int:
        return self._write(
            lambda: super(MortalJournal, self).open_rollout(
                model=model, candidate=candidate, stable=stable, spec=spec, at=at
            )
        )

    def _write(self, write: Callable[[], int]) -> int:
        self.writes += 1
        if self.dead or self.writes == self._die_at:
            if not self.dead and self._committed:
                write()
            self.dead = True
            self.on_death()
            raise Killed
        return write()


@dataclass(frozen=True)
class Ending:
    state: State
    writes: int
    deaths: int
    kept: int
    """Records that were in the journal when the controller died."""
    world: World
    records: list[Record]
    spec: RolloutSpec


def live(
    candidate: Behaviour,
    *,
    die_at: int = 0,
    committed: bool = False,
    away_s: float = 2.0,
    spec: RolloutSpec = SPEC,
) -> Ending:
    """One rollout to its end, with a death at the given write and a return `away_s` later, at a whole second: so that
    its ticks are of the same seconds as those of a controller that nobody killed."""

    async def test(clock: VirtualClock) -> Ending:
        world = make_world(clock, candidate, rps=400.0, load_s=1.0)
        connection = sqlite3.connect(":memory:")
        journal = MortalJournal(connection, die_at=die_at, committed=committed)
        deaths = kept = 0
        state = await _life(world, connection, journal, spec)
        if state is None:
            deaths, kept = 1, len(Journal(connection).read(1))
            await clock.sleep(math.ceil(clock.now() + away_s) - clock.now())
            assert away_s < TTL_S or world.weight("digits") == 0
            state = await _life(world, connection, MortalJournal(connection, die_at=0, committed=False), spec)
        assert state is not None
        assert world.violations == []
        return Ending(state, journal.writes, deaths, kept, world, Journal(connection).read(1), spec)

    return run_virtual(test)


@cache
def undisturbed_life(candidate: Behaviour, spec: RolloutSpec = SPEC) -> Ending:
    return live(candidate, spec=spec)


async def _life(
    world: World, connection: sqlite3.Connection, journal: MortalJournal, spec: RolloutSpec
) -> State | None:
    """Run a controller until its rollout is settled, or it dies (None)."""
    controller = make_controller(world, connection, journal=journal)
    task = asyncio.create_task(controller.run())
    journal.on_death = task.cancel
    try:
        if not controller.history("digits"):
            await controller.start("digits", 2, 1, spec)
        while not journal.dead:
            await world.clock.sleep(1.0)
            status = controller.rollout(1)
            if status.state in FINAL and status.undo_left_s is None:
                await world.clock.sleep(3.0)
                return status.state
    except Killed:
        pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return None


def assert_every_weight_was_granted_first(ending: Ending) -> None:
    """Of every published weight: the journal's last transition before it says so, or it is 0."""
    assert unfounded_rises(ending.records) == []
    grants = [(r.at, Progress.from_json(r.body["progress"])) for r in ending.records if r.kind is Kind.TRANSITION]
    epoch = ending.world.clock.now() - ending.world.clock.monotonic()
    for at, weights in ending.world.weights_seen:
        granted = {progress.weight_bp for since, progress in grants if since <= at + epoch}
        assert weights.get("digits", 0) in {0, *granted}


def assert_evidence_is_identical(ending: Ending, undisturbed: Ending) -> int:
    """How many ticks after the return were compared.

    Until the death the journal is the undisturbed one's, record for record. After it, each tick with the same weight is
    the undisturbed one's of that second, to the last count; those in which nobody watched are left out, and nothing is
    counted twice. Every verdict follows from the ticks in the journal.
    """
    assert ending.records[: ending.kept] == undisturbed.records[: ending.kept]
    ticks = _ticks(ending)
    by_second = {record.body["at"]: record.body for record in _ticks(undisturbed)}
    compared = 0
    for record in ticks[sum(r.kind is Kind.TICK for r in ending.records[: ending.kept]) :]:
        then = by_second.get(record.body["at"])
        if then is not None and "weight" in then and then["weight"] == record.body.get("weight"):
            assert _evidence(record.body) == _evidence(then)
            compared += 1
    assert all(record.body["s"] <= 1.0 for record in ticks), "a tick spans time in which nobody watched"
    assert len({record.body["at"] for record in ticks}) == len(ticks), "a tick was judged twice"
    row = RolloutRow(1, "digits", 2, 1, ending.spec.to_json(), ending.records[0].at, ending.state, True, None)
    assert replay(row, ending.records).differences == ()
    told = _notes(ending) - _notes(undisturbed)
    assert _gaps(ticks) <= _gaps(_ticks(undisturbed)) + told, "time without evidence is told"
    assert told <= ending.deaths
    assert course(ending.records) == course(undisturbed.records)
    return compared


def _evidence(body: Mapping[str, Any]) -> dict[str, Any]:
    """A tick without what was made of it, and without the edges, which are written when they were not known yet."""
    return {name: value for name, value in body.items() if name not in ("verdict", "edges")}


def _notes(ending: Ending) -> int:
    return sum(record.kind is Kind.NOTE for record in ending.records)


def _ticks(ending: Ending) -> list[Record]:
    return [record for record in ending.records if record.kind is Kind.TICK]


def _gaps(ticks: Sequence[Record]) -> int:
    """At a gate before the first step nobody is judged either."""
    return sum(later.at - earlier.at > 1.5 for earlier, later in pairwise(ticks))


BEFORE_OR_AFTER = pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
STRIDE = pytest.mark.parametrize(
    "stride",
    [
        pytest.param(15, id="every fifteenth write"),
        pytest.param(1, id="every write", marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
    ],
)


@STRIDE
@BEFORE_OR_AFTER
def test_a_good_version_is_promoted_whenever_the_controller_dies(committed: bool, stride: int) -> None:
    undisturbed = undisturbed_life(GOOD)
    assert undisturbed.state is State.PROMOTED
    compared = 0
    for die_at in range(1, undisturbed.writes + 1, stride):
        ending = live(GOOD, die_at=die_at, committed=committed)
        assert (ending.state, ending.deaths) == (State.PROMOTED, 1), die_at
        assert ending.world.stable["digits"] == 2
        assert ("digits", 2) in ending.world.loaded
        assert_every_weight_was_granted_first(ending)
        compared += assert_evidence_is_identical(ending, undisturbed)
    assert compared > undisturbed.writes // stride, "ticks after a return are compared"


@STRIDE
@BEFORE_OR_AFTER
def test_a_shadow_step_and_gates_are_passed_whenever_the_controller_dies(committed: bool, stride: int) -> None:
    undisturbed = undisturbed_life(GOOD, GATED)
    assert undisturbed.state is State.PROMOTED
    compared = 0
    for die_at in range(1, undisturbed.writes + 1, stride):
        ending = live(GOOD, die_at=die_at, committed=committed, spec=GATED)
        assert (ending.state, ending.deaths) == (State.PROMOTED, 1), die_at
        assert_every_weight_was_granted_first(ending)
        compared += assert_evidence_is_identical(ending, undisturbed)
    assert compared > undisturbed.writes // stride, "ticks after a return are compared"


@STRIDE
@BEFORE_OR_AFTER
@pytest.mark.parametrize("away_s", [2.0, 45.0], ids=["back within the lease", "back after the lease"])
def test_a_bad_version_is_rolled_back_whenever_the_controller_dies(committed: bool, away_s: float, stride: int) -> None:
    undisturbed = undisturbed_life(BAD)
    assert undisturbed.state is State.ROLLED_BACK
    compared = 0
    for die_at in range(1, undisturbed.writes + 1, min(stride, 3)):
        ending = live(BAD, die_at=die_at, committed=committed, away_s=away_s)
        assert (ending.state, ending.deaths) == (State.ROLLED_BACK, 1), die_at
        assert ending.world.stable["digits"] == 1
        assert ("digits", 2) not in ending.world.staged
        assert ending.world.weight("digits") == 0
        assert_every_weight_was_granted_first(ending)
        compared += assert_evidence_is_identical(ending, undisturbed)
    assert (compared > 0) == (away_s < TTL_S), "ticks after a return are compared, of one who was not away for too long"


def test_there_are_more_than_two_hundred_points() -> None:
    lives = (undisturbed_life(GOOD), undisturbed_life(GOOD, GATED), undisturbed_life(BAD))
    assert 2 * sum(life.writes for life in lives) >= 200


def test_a_run_read_from_the_journal_judges_on_bit_for_bit() -> None:
    """After any number of ticks, and past a checkpoint, the journal gives the very run that wrote it."""
    looked_at = {0, 1, 2, 8, 29, *range(CHECKPOINT_TICKS - 2, CHECKPOINT_TICKS + 3), CHECKPOINT_TICKS + 19}

    async def test(clock: VirtualClock) -> None:
        world = make_world(clock, GOOD, rps=100.0)
        await world.load("digits", 2)
        await world.stage("digits", 2)
        journal = Journal(sqlite3.connect(":memory:"))
        slow = replace(SPEC, min_step_s=1e6)
        rollout_id = journal.open_rollout(model="digits", candidate=2, stable=1, spec=slow.to_json(), at=clock.now())
        row = journal.rollout(rollout_id)
        assert row is not None
        run = Run(row, journal)
        for event in (Event.ACTIVATED, Event.LOADED, Event.CHECKED):
            run.apply(Happening(event, clock.now()))
        for tick_number in range(CHECKPOINT_TICKS + 20):
            await world.lease({"digits": run.lease_bp})
            await clock.sleep(1.0)
            world.missing = "scrape failed" if tick_number % 7 == 3 else ""
            run.take((await world.read(["digits"]))["digits"], clock.now())
            assert run.judged
            if tick_number not in looked_at:
                continue
            twin = Run.resume(row, journal)
            assert twin.judgement.snapshot() == run.judgement.snapshot()
            assert (twin.progress, twin.verdict, twin.tally) == (run.progress, run.verdict, run.tally)

    run_virtual(test)
