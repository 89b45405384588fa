"""Every interleaving of what can happen to the rollouts of a model, to a bounded depth.

Breadth first, through the real controller's verbs, fleet, machine and journal. Each state is read from the journal as
a restarted controller reads it, so a restart stands before every single happening; states that are alike in all that
decides what comes next are expanded once, which is what makes the depth feasible. Verdicts and answers of servers are
played: what makes a verdict is tested elsewhere, what may follow from one is here.
"""

from __future__ import annotations

import sqlite3
import sys
import zlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rollout.controller import Controller
from rollout.errors import RolloutError
from rollout.fleet import Fleet
from rollout.freeze import FreezeWindow
from rollout.journal import Journal, Kind
from rollout.machine import FINAL, DeadlineAction, Event, Progress, State
from rollout.run import Run
from rollout.spec import OnNewVersion, RolloutSpec
from rollout.spec_parts import Gate, ShadowSpec
from tests.rollout.virtual import VirtualClock, VirtualLoop
from tests.rollout.world import World

MODEL = "digits"
DAY_S = 86_400.0
FROZEN_DAYS = frozenset({1, 3, 5})
SPEC = RolloutSpec(steps_bp=(3000, 10_000), freeze=(FreezeWindow(FROZEN_DAYS),))
STARTS = {
    "start 2": (2, replace(SPEC, shadow=ShadowSpec(), gates=(Gate(0, 60.0), Gate(1)))),
    "start 2, replaceable": (2, replace(SPEC, on_new_version=OnNewVersion.REPLACE, on_deadline=DeadlineAction.PAUSE)),
    "start 2, alone": (2, replace(SPEC, on_new_version=OnNewVersion.REFUSE, on_deadline=DeadlineAction.ROLL_BACK)),
    "start 3": (3, replace(SPEC, gates=(Gate(2),))),
}
VERBS = ("promote", "abort", "pause", "resume", "undo", "retry")
OBSERVED = {
    "verdict: advance": Event.ADVANCE,
    "verdict: harm": Event.HARM,
    "the gate's time passes": Event.GATE_OPENED,
    "candidate down": Event.NOT_READY,
    "candidate up": Event.READY,
    "candidate lost": Event.LOST,
    "deadline": Event.DEADLINE,
    "window closes": Event.WINDOW_CLOSED,
}
HAPPENINGS = (*STARTS, *VERBS, *OBSERVED, "act succeeds", "act fails", "freeze", "thaw")
SUCCESS = {
    State.LOADING: Event.LOADED,
    State.CHECKING: Event.CHECKED,
    State.PROMOTING: Event.SWAPPED,
    State.ROLLING_BACK: Event.WITHDRAWN,
}
FAILURE = {State.LOADING: Event.LOAD_FAILED, State.CHECKING: Event.CHECK_FAILED}
GRANTS = frozenset({Event.CHECKED, Event.ADVANCE, Event.GATE_OPENED, Event.RESUME, Event.SWAPPED})
Key = tuple[Any, ...]


class Calendar(VirtualClock):
    """Time goes on by a second with every look at it, and by days when a freeze begins or ends."""

    seconds = 0.0

    def now(self) -> float:
        self.seconds += 1.0
        return self.seconds

    @property
    def frozen(self) -> bool:
        return (int(self.seconds // DAY_S) + 3) % 7 in FROZEN_DAYS  # The epoch was a Thursday.

    def move_to(self, *, frozen: bool) -> None:
        while self.frozen is not frozen:
            self.seconds += DAY_S


class Play:
    """The model's rollouts as a controller finds them that was just started on this journal."""

    def __init__(self, image: bytes, seconds: float, loop: VirtualLoop) -> None:
        self.clock = Calendar(loop)
        self.clock.seconds = seconds
        self.connection = sqlite3.connect(":memory:")
        if image:
            self.connection.deserialize(zlib.decompress(image))
        else:
            self.connection.execute("PRAGMA page_size = 512")
        self.journal = Journal(self.connection)
        world = World(self.clock, {})
        self.controller = Controller(
            serving=world, routing=world, evidence=world, journal=self.journal, clock=self.clock
        )
        self.controller.resume_from_journal()

    @property
    def fleet(self) -> Fleet:
        return self.controller._fleet

    def image(self) -> bytes:
        return zlib.compress(self.connection.serialize(), 1)

    def looked(self) -> None:
        """The loop has judged a tick and heard from the candidate."""
        for run in self.fleet:
            run.fresh, run.baseline, run.readiness.confirmed = True, False, True

    def happens(self, what: str) -> None:
        """One happening, and what the loop does after each."""
        if what in STARTS:
            version, spec = STARTS[what]
            self._say(self.controller.start(MODEL, version, self.stable(), spec))
        elif what in VERBS:
            self._say(getattr(self.controller, what)(MODEL))
        elif what in ("freeze", "thaw"):
            self.clock.move_to(frozen=what == "freeze")
        else:
            self._observed(what)
        self.fleet.activate()
        for run in self.fleet:
            self.fleet.drop_settled(run)

    def _say(self, request: Coroutine[Any, Any, object]) -> None:
        """Verbs wait for nothing, so one step ends them."""
        try:
            request.send(None)
        except StopIteration:
            return
        except RolloutError as refusal:
            assert str(refusal), "a refusal says why"  # noqa: PT017
            return
        raise AssertionError("a verb waited")

    def _observed(self, what: str) -> None:
        run = self.fleet.undoable(MODEL) if what == "window closes" else self.fleet.active(MODEL)
        if run is None:
            return
        place = run.progress.resume if run.progress.state is State.PAUSED else run.progress.state
        answers = {"act succeeds": SUCCESS, "act fails": FAILURE}.get(what, {})
        event = OBSERVED.get(what) or (None if place is None else answers.get(place))
        if event is not None:
            self.fleet.apply(run, event, what)

    def stable(self) -> int:
        decided = self.journal.last_decided(MODEL)
        if decided is None:
            return 1
        return decided.candidate if decided.state is State.PROMOTED else decided.stable

    def key(self) -> Key:
        """All that decides what can come next; times and words do not."""
        runs = tuple((run.candidate, run.stable, _plain(run.progress), run.plan) for run in self.fleet)
        latest = self.journal.history(MODEL, limit=1)
        return runs, self.stable(), [(row.candidate, row.state) for row in latest], self.clock.frozen

    def last_event(self, run: Run) -> Event | None:
        changes = [record for record in self.journal.read(run.id) if record.kind is Kind.TRANSITION]
        return Event(changes[-1].body["event"]) if changes else None


def _plain(progress: Progress) -> Progress:
    frozen_at = None if progress.frozen_at is None else 0.0
    return replace(progress, since=0.0, reason="", frozen_at=frozen_at, frozen_s=0.0, exposed_at=None)


@dataclass(frozen=True, slots=True)
class Seen:
    image: bytes
    seconds: float
    word: tuple[str, ...]


def check(before: dict[int, Progress], play: Play, what: str) -> None:
    """What must hold after any happening, whatever came before."""
    under_way = [run for run in play.fleet if run.progress.state not in FINAL | {State.PENDING}]
    assert len(under_way) <= 1, "two rollouts of one model are under way"
    for run in play.fleet:
        old, new = before.get(run.id, Progress()), run.progress
        assert run.lease_bp <= new.lease_bp <= new.weight_bp
        if new.withheld or new.state in FINAL or new.state is State.ROLLING_BACK:
            assert run.lease_bp == 0, "weight for a version that must have none"
            assert run.mirror_bp == 0
        if new.weight_bp > old.weight_bp:
            event = play.last_event(run)
            assert event in GRANTS, (what, event)
            assert not old.frozen or event is Event.SWAPPED, "an advance in a freeze"
        if new.state is State.PROMOTING and old.state is not State.PROMOTING:
            assert not old.withheld, "promoted though it is not ready"
            assert what in ("promote", "resume") or (what in OBSERVED and not old.frozen), what
        if what == "verdict: harm" and old.state in (State.SHADOW, State.GATE, State.STEP, State.BAKING):
            assert new.state is State.ROLLING_BACK
    if what == "abort":
        assert not [run for run in under_way if run.lease_bp or run.mirror_bp], "weight after an abort"


def assert_restart_is_safe(play: Play, expected: Key) -> None:
    """What was read from the journal is what was there, and nothing of it is published unseen."""
    assert play.key() == expected
    assert not [run for run in play.fleet if run.lease_bp], "weight before anything was looked at"


def assert_has_an_end(play: Play) -> None:
    """Whatever happened, an operator's abort and servers that answer bring it to an end."""
    for _ in range(8):
        open_now = [run for run in play.fleet if run.progress.state not in FINAL]
        if not open_now:
            return
        play.happens("act succeeds" if open_now[0].progress.state is State.ROLLING_BACK else "abort")
    raise AssertionError(f"no end in sight: {[run.progress for run in play.fleet]}")


def explore(depth: int) -> Iterator[int]:
    """New states per depth."""
    loop = VirtualLoop()
    try:
        start = Play(b"", 0.0, loop)
        known = {repr(start.key())}
        frontier = [(start.key(), Seen(start.image(), 0.0, ()))]
        for _ in range(depth):
            following: list[tuple[Key, Seen]] = []
            for expected, seen in frontier:
                restarted = Play(seen.image, seen.seconds, loop)
                assert_restart_is_safe(restarted, expected)
                restarted.connection.close()
                for what in HAPPENINGS:
                    play = Play(seen.image, seen.seconds, loop)
                    play.looked()
                    before = {run.id: run.progress for run in play.fleet}
                    try:
                        play.happens(what)
                        check(before, play, what)
                        key = play.key()
                        if repr(key) in known:
                            continue
                        known.add(repr(key))
                        following.append((key, Seen(play.image(), play.clock.seconds, (*seen.word, what))))
                        assert_has_an_end(play)
                    except AssertionError as error:
                        raise AssertionError(f"after {', '.join([*seen.word, what])}: {error}") from error
                    finally:
                        play.connection.close()
            yield len(following)
            frontier = following
    finally:
        loop.close()


def told(new_per_depth: list[int]) -> str:
    return (
        f"{1 + sum(new_per_depth):,} states explored to depth {len(new_per_depth)}: {new_per_depth} new ones per depth"
    )


def test_every_order_of_events_to_depth_6(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(explore(6))
    with capsys.disabled():
        sys.stdout.write(f"\n{told(found)}\n")
    assert len(found) == 6
    assert all(found), "every further happening leads somewhere new"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_every_order_of_events_to_depth_12(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(explore(12))
    with capsys.disabled():
        sys.stdout.write(f"\n{told(found)}\n")
    assert len(found) == 12
