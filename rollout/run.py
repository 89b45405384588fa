"""One rollout in the controller's hands: its place in the machine, its judge, its totals and its journal lines.

`rollout.controller` owns the runs and decides when; here is what one event or one tick does to one rollout: decide,
write, and only then be in the new state. A run made from the journal (`resume`) judges on bit for bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rollout.freeze import frozen_until
from rollout.journal import Journal, JournalError, Kind, Record, RolloutRow
from rollout.judge import Judge
from rollout.judge.margins import BAKE_WEIGHT_BP
from rollout.judge.state import JudgeState
from rollout.judge.telemetry import fault
from rollout.judge.verdict import Decision as Ruling
from rollout.judge.verdict import Verdict
from rollout.machine import Act, Decision, Event, Happening, Plan, Progress, State, decide
from rollout.ports import Tick
from rollout.records import Tally, tick_from_json, tick_to_json, verdict_from_json
from rollout.spec import RolloutSpec
from rollout.spec_parts import Gate

CHECKPOINT_TICKS = 60
"""A restart judges at most this many ticks again."""

JUDGED = frozenset({State.GATE, State.STEP, State.BAKING, State.PAUSED, State.PROMOTING})

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


class Run:
    """One unsettled rollout.

    `fresh`: a tick was judged since the controller started or was away; only then is the weight published.
    `baseline`: the next tick spans time in which nobody watched; it is dropped.
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
        self.judge: Judge | None = None
        self.verdict: Verdict | None = None
        self.tally = Tally()
        self.troubles: dict[str, Trouble] = {}
        self.readiness = Readiness()
        self.fresh = True
        self.baseline = False
        self.task: asyncio.Task[None] | None = None
        self.due: tuple[Act, ...] = ()
        self._journal = journal
        self._ticks_since_snapshot = 0

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
        return run

    @property
    def judged(self) -> bool:
        """Whether ticks are for the judge now: the candidate has had its first step and is not decided."""
        return self.judge is not None and self.progress.state in JUDGED

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
        self.readiness = Readiness(confirmed=None)

    def apply(self, happening: Happening, *, records: Sequence[Record] = ()) -> Decision:
        """Decide, write (with `records` in the same commit), and be in the new state. Raises `JournalError`."""
        decision = decide(self.plan, self.progress, happening)
        new = decision.progress
        if new == self.progress:
            if records:
                self._journal.append(records)
            return decision
        entered = new.step != self.progress.step
        came_back = self.progress.withheld and not new.withheld and new.state in JUDGED
        if new.weight_bp and (entered or came_back):
            self._begin_step(new, happening.at)
        body = {
            "event": happening.event.value,
            "reason": happening.reason,
            "by": happening.by,
            "progress": new.to_json(),
            "stable": self.stable,
            **self._snapshot(),
        }
        self._journal.append([*records, Record(self.id, happening.at, Kind.TRANSITION, body)])
        self.progress = new
        self._ticks_since_snapshot = 0
        return decision

    def take(self, tick: Tick, at: float) -> Decision:
        """Judge one tick and do what the verdict says. Raises `JournalError`."""
        assert self.judge is not None
        body = tick_to_json(tick, self.tally.edges_us)
        if self._sound(tick):
            self.fresh = True
        verdict = self._observe(tick)
        records = [Record(self.id, at, Kind.TICK, body)]
        event = _EVENTS.get(verdict.decision)
        if event is not None:
            happening = Happening(event, at, verdict.reason)
            if decide(self.plan, self.progress, happening).progress != self.progress:
                return self.apply(happening, records=records)
        self._ticks_since_snapshot += 1
        if self._ticks_since_snapshot >= CHECKPOINT_TICKS:
            records.append(Record(self.id, at, Kind.CHECKPOINT, self._snapshot()))
            self._ticks_since_snapshot = 0
        self._journal.append(records)
        return Decision(self.progress)

    def note(self, text: str, at: float) -> None:
        """Leave a line for whoever reads the history. Raises `JournalError`."""
        self._journal.append([Record(self.id, at, Kind.NOTE, {"text": text})])

    def failing(self, where: str, message: str, at: float) -> int:
        """Note one failed attempt; how many in a row."""
        known = self.troubles.get(where)
        self.troubles[where] = (
            replace(known, message=message, attempts=known.attempts + 1) if known else Trouble(where, message, at, 1)
        )
        return self.troubles[where].attempts

    def working(self, where: str) -> None:
        self.troubles.pop(where, None)

    def _observe(self, tick: Tick) -> Verdict:
        assert self.judge is not None
        verdict = self.judge.observe(tick, self.stable, self.candidate)
        self.verdict = verdict
        if self._sound(tick):
            self.tally = self.tally.plus(tick)
        return verdict

    def _sound(self, tick: Tick) -> bool:
        """Whether the tick tells anything, as the judge sees it."""
        return not fault(tick, self.stable, self.candidate, None, tick.edges_us)

    def _begin_step(self, new: Progress, at: float) -> None:
        """Tell the judge of a new step, or of one that begins anew because the candidate was gone."""
        if self.judge is None:
            self.judge = Judge(self.spec.judge_settings())
        weights = self.plan.weights_bp
        after = weights[new.step + 1] if new.step + 1 < len(weights) else None
        self.judge.start_step(new.weight_bp, at, last=after is None or after >= BAKE_WEIGHT_BP)

    def _snapshot(self) -> dict[str, object]:
        return {
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "judge": None if self.judge is None else self.judge.state().to_json(),
            "tally": self.tally.to_json(),
        }

    def _replay(self, record: Record) -> None:
        body = record.body
        if record.kind is Kind.TICK:
            self._observe(tick_from_json(body, self.tally.edges_us))
            self._ticks_since_snapshot += 1
        elif record.kind in (Kind.TRANSITION, Kind.CHECKPOINT):
            if record.kind is Kind.TRANSITION:
                self.progress = Progress.from_json(body["progress"])
                self.stable = body["stable"]
            if body["judge"] is not None:
                self._restore_judge(body["judge"], record.at)
            self.verdict = None if body["verdict"] is None else verdict_from_json(body["verdict"])
            self.tally = Tally.from_json(body["tally"])
            self._ticks_since_snapshot = 0

    def _restore_judge(self, state: Mapping[str, object], at: float) -> None:
        try:
            self.judge = Judge(self.spec.judge_settings(), JudgeState.from_json(state))
        except ValueError:
            # Written by another version of the judge: what it proved cannot be read, so the step is judged anew.
            self.judge = None
            self._begin_step(self.progress, at)
