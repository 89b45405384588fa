"""One rollout in the controller's hands: its place in the machine, its judge, its totals and its journal lines.

`rollout.controller` owns the runs and decides when; here is what one event or one tick does to one rollout: decide,
write, and only then be in the new state. A run made from the journal (`resume`) judges on bit for bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollout.calibration import Calibrated
from rollout.foresight import Foresight
from rollout.freeze import frozen_until
from rollout.journal import Journal, JournalError, Kind, Record, RolloutRow
from rollout.judge.verdict import Decision as Ruling
from rollout.judge.verdict import Verdict
from rollout.judgement import Judgement, digest, sound
from rollout.machine import Act, Decision, Event, Happening, Plan, Progress, State, decide
from rollout.outlook import Outlook
from rollout.ports import Tick
from rollout.records import Tally, tick_from_json, tick_to_json
from rollout.spec import RolloutSpec
from rollout.spec_parts import Gate

CHECKPOINT_TICKS = 60
"""A restart judges at most this many ticks again."""

_WATCHED = frozenset({State.SHADOW, State.GATE, State.STEP, State.BAKING, State.PROMOTING})

_EVENTS = {Ruling.ADVANCE: Event.ADVANCE, Ruling.ROLL_BACK: Event.HARM}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A call to the data plane or a server that fails and is tried again; `since` in epoch seconds."""

    where: str
    message: str
    since: float
    attempts: int


@dataclass(slots=True)
class Readiness:
    """What the last polls said. `bad_polls`: the candidate's failures in a row; `since`: when it was first withheld.

    `confirmed`: the candidate answered since the controller started or was away; None until it was asked.
    """

    poll: asyncio.Task[tuple[bool, bool]] | None = None
    bad_polls: int = 0
    since: float | None = None
    confirmed: bool | None = True


@dataclass(slots=True)
class Delivered:
    """The weight that the data plane has, as far as it is known, and whether it had it all through the last tick."""

    weight_bp: int | None = None
    _changed: bool = True

    def published(self, weight_bp: int | None) -> None:
        """The data plane acknowledged it; None when it did not."""
        self._changed = self._changed or weight_bp != self.weight_bp
        self.weight_bp = weight_bp

    def steady(self) -> int | None:
        """The weight of the tick that ends now; None when it changed in it."""
        changed, self._changed = self._changed, False
        return None if changed else self.weight_bp


class Run:
    """One unsettled rollout.

    `fresh`: a tick was judged since the controller started or was away; only then is the weight published.
    `baseline`: the next tick spans time in which nobody watched; it is dropped.
    `outlook`: what was expected when it was started in this process.
    """

    def __init__(self, row: RolloutRow, journal: Journal) -> None:
        self.id = row.id
        self.model = row.model
        self.candidate = row.candidate
        self.stable = row.stable
        self.created_at = row.created_at
        self.spec = RolloutSpec.from_json(row.spec)
        self.plan: Plan = self.spec.plan()
        self.progress = Progress(since=row.created_at)
        self.judgement = Judgement(self.spec, self.plan)
        self.foresight = Foresight(self.spec, self.judgement)
        self.outlook: Outlook | None = None
        self.troubles: dict[str, Trouble] = {}
        self.readiness = Readiness()
        self.delivered = Delivered()
        self.fresh = True
        self.baseline = False
        self.task: asyncio.Task[None] | None = None
        self.due: tuple[Act, ...] = ()
        self._journal = journal
        self._ticks_since_snapshot = 0
        self._watched_at: float | None = None
        self._restarted = False

    @classmethod
    def resume(cls, row: RolloutRow, journal: Journal) -> Run:
        """The run as the journal has it. Raises `JournalError` when its lines cannot be understood."""
        run = cls(row, journal)
        try:
            for record in journal.since_snapshot(row.id):
                run._replay(record)
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"the journal of rollout {row.id} cannot be understood: {error!r}") from error
        run.look_anew()
        run._restarted = True
        return run

    @property
    def judged(self) -> bool:
        """Whether ticks are for the judge now: the candidate has had its first step and is not decided."""
        return self.judgement.judges(self.progress)

    @property
    def verdict(self) -> Verdict | None:
        """The last one."""
        return self.judgement.verdict

    @property
    def tally(self) -> Tally:
        return self.judgement.tally

    @property
    def watched(self) -> bool:
        """Whether the candidate is routable and has to answer: polled, and not published before it was."""
        state = self.progress.resume if self.progress.state is State.PAUSED else self.progress.state
        return state in _WATCHED

    @property
    def mirror_bp(self) -> int:
        """The share of requests to copy now."""
        copied = self.spec.shadow is not None and self.progress.mirrored and self.readiness.confirmed
        return self.spec.shadow.share_bp if self.spec.shadow is not None and copied else 0

    @property
    def frozen_until(self) -> float | None:
        """When the freeze in force ends, epoch seconds."""
        if self.progress.frozen_at is None:
            return None
        return frozen_until(self.spec.freeze, self.progress.frozen_at)

    @property
    def gate(self) -> Gate | None:
        """The gate at which the rollout waits; None elsewhere, and where only a freeze holds it."""
        return self.plan.gate(self.progress.step + 1) if self.progress.state is State.GATE else None

    def gate_is_open(self, at: float) -> bool:
        """Whether the gate's time has passed and, where users see the candidate, evidence still says advance."""
        if self.progress.state is not State.GATE or self.unseen:
            return False
        gate, shown = self.gate, self.verdict is not None and self.verdict.decision is Ruling.ADVANCE
        if self.progress.step >= 0 and not (shown and self.fresh):
            return False
        return gate is None or (gate.seconds is not None and self.progress.waited_s(at) >= gate.seconds)

    @property
    def lease_bp(self) -> int:
        """The weight to publish now: what was granted, as far as fresh evidence stands behind it."""
        return self.progress.lease_bp if self.fresh and self.readiness.confirmed else 0

    @property
    def unseen(self) -> bool:
        """Whether too little was looked at since the start or a freeze to say anything about the weight."""
        return (self.judged and self.baseline) or (self.watched and self.readiness.confirmed is None)

    def look_anew(self) -> None:
        """Nobody watched for a while: no weight until a tick was judged and the candidate answered."""
        self.fresh, self.baseline = False, True
        self.delivered = Delivered()
        self.readiness = Readiness(confirmed=None)

    def apply(self, happening: Happening, *, records: Sequence[Record] = ()) -> Decision:
        """Decide, write (with `records` in the same commit), and be in the new state. Raises `JournalError`."""
        decision = decide(self.plan, self.progress, happening)
        new = decision.progress
        if new == self.progress:
            if records:
                self._journal.append(records)
            return decision
        self.judgement.enter(self.progress, new, happening.at)
        body = {
            "event": happening.event.value,
            "reason": happening.reason,
            "by": happening.by,
            "progress": new.to_json(),
            "stable": self.stable,
            **self.judgement.snapshot(),
        }
        self._journal.append([*records, Record(self.id, happening.at, Kind.TRANSITION, body)])
        self.progress = new
        self._ticks_since_snapshot = 0
        return decision

    def begin(self, happening: Happening, calibrated: Calibrated | None) -> Decision:
        """The rollout is activated; what it is calibrated on is written in the same commit. Raises `JournalError`."""
        if calibrated is None:
            return self.apply(happening)
        self.judgement.calibrate(calibrated)
        return self.apply(happening, records=[Record(self.id, happening.at, Kind.CALIBRATION, calibrated.to_json())])

    def take(self, tick: Tick, at: float) -> Decision:
        """Judge one tick and do what the verdict says. Raises `JournalError`."""
        body = tick_to_json(tick, self.tally.edges_us)
        if sound(tick, self.stable, self.candidate):
            self.fresh = True
        weight_bp = self.delivered.steady()
        verdict = self.judgement.observe(
            tick, self.progress, stable=self.stable, candidate=self.candidate, weight_bp=weight_bp
        )
        if weight_bp is not None:
            body["weight"] = weight_bp
        self._watched_at = at
        records = [Record(self.id, at, Kind.TICK, {**body, "verdict": digest(verdict)})]
        event = _EVENTS.get(verdict.decision)
        if event is not None:
            happening = Happening(event, at, verdict.reason)
            if decide(self.plan, self.progress, happening).progress != self.progress:
                return self.apply(happening, records=records)
        self._ticks_since_snapshot += 1
        if self._ticks_since_snapshot >= CHECKPOINT_TICKS:
            records.append(Record(self.id, at, Kind.CHECKPOINT, self.judgement.snapshot()))
            self._ticks_since_snapshot = 0
        self._journal.append(records)
        return Decision(self.progress)

    def expect(self, outlook: Outlook, at: float) -> Decision:
        """What was foreseen when the rollout was started, for its status and its history. Raises `JournalError`."""
        self.outlook = outlook
        said = (outlook.words(), *(f"warning: {words}" for words in outlook.warnings))
        self._journal.append([Record(self.id, at, Kind.NOTE, {"text": text}) for text in said])
        return Decision(self.progress)

    def watch_again(self, at: float) -> None:
        """The stretch in which nobody watched is over, and counts for nothing. Raises `JournalError`."""
        self.baseline = False
        if self._restarted and self._watched_at is not None:
            gone_s = at - self._watched_at
            self.note(
                f"the controller was restarted: {gone_s:.0f} s without evidence, which count for neither side", at
            )
        self._restarted = False

    def note(self, text: str, at: float, details: Mapping[str, Any] | None = None) -> None:
        """Leave a line for whoever reads the history, with `details` for programs. Raises `JournalError`."""
        self._journal.append([Record(self.id, at, Kind.NOTE, {"text": text, **(details or {})})])

    def failing(self, where: str, message: str, at: float) -> int:
        """Note one failed attempt; how many in a row."""
        known = self.troubles.get(where)
        self.troubles[where] = (
            replace(known, message=message, attempts=known.attempts + 1) if known else Trouble(where, message, at, 1)
        )
        return self.troubles[where].attempts

    def working(self, where: str) -> None:
        self.troubles.pop(where, None)

    def _replay(self, record: Record) -> None:
        body = record.body
        if record.kind is Kind.TICK:
            tick = tick_from_json(body, self.tally.edges_us)
            self.judgement.observe(
                tick, self.progress, stable=self.stable, candidate=self.candidate, weight_bp=body.get("weight")
            )
            self._ticks_since_snapshot += 1
            self._watched_at = record.at
        elif record.kind is Kind.CALIBRATION:
            self.judgement.calibrate(Calibrated.from_json(body))
        elif record.kind in (Kind.TRANSITION, Kind.CHECKPOINT):
            if record.kind is Kind.TRANSITION:
                self.progress = Progress.from_json(body["progress"])
                self.stable = body["stable"]
            self.judgement.restore(body, self.progress, record.at)
            self._ticks_since_snapshot = 0
            self._watched_at = record.at
