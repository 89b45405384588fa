"""What must be true of every journal, however often its controller was killed: for crash points and for real kills."""

from __future__ import annotations

from collections.abc import Sequence

from rollout.journal import Kind, Record
from rollout.judge.verdict import Decision
from rollout.machine import Event, Progress, State
from rollout.records import verdict_from_json

Course = tuple[str, str, int, int]
"""Event, new state, step and granted weight."""


def transitions(records: Sequence[Record]) -> list[tuple[Record, Progress]]:
    return [(r, Progress.from_json(r.body["progress"])) for r in records if r.kind is Kind.TRANSITION]


def course(records: Sequence[Record]) -> list[Course]:
    """The way of a rollout without its times."""
    return [(r.body["event"], p.state.value, p.step, p.weight_bp) for r, p in transitions(records)]


def unfounded_rises(records: Sequence[Record]) -> list[str]:
    """Transitions after which the candidate may have more traffic than before, and the journal does not say why it may.

    The first step needs the checks to be passed (and the shadow step, where there is one); each later one a verdict to
    advance in the same record; what a promotion adds follows its own verdict. Operators' words are not known here.
    """
    found, granted, passed, before = [], 0, False, State.PENDING
    for record, progress in transitions(records):
        verdict = record.body["verdict"]
        advances = verdict is not None and verdict_from_json(verdict).decision is Decision.ADVANCE
        event = Event(record.body["event"])
        passed = passed or event is Event.CHECKED
        if progress.weight_bp > granted:
            first = granted == 0 and passed and (verdict is None or advances)
            swapped = event is Event.SWAPPED and before is State.PROMOTING
            if not (first or advances or swapped):
                found.append(f"{event.value} to {progress.weight_bp / 100:g} %: {record.body['reason']}")
        granted, before = max(granted, progress.weight_bp), progress.state
    return found


def answers_counted(records: Sequence[Record], version: int) -> int:
    """How many of a version's answers the journal's evidence has, over all its ticks."""
    arms = [record.body.get("arms", {}).get(str(version), {}) for record in records if record.kind is Kind.TICK]
    return sum(arm.get("ok", 0) + arm.get("bad", 0) for arm in arms)
