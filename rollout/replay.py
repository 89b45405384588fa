"""Judges a rollout again from its journal alone and compares every verdict, byte for byte: `penstock rollout replay`.

What it proves: the verdicts followed from the evidence that is written down, by this version of the judge and by
nothing else. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rollout.calibration import Calibrated
from rollout.journal import Kind, Record, RolloutRow
from rollout.judgement import Judgement, digest
from rollout.machine import Progress
from rollout.records import tick_from_json
from rollout.spec import RolloutSpec


@dataclass(frozen=True, slots=True)
class Difference:
    """One record whose verdict or evidence comes out otherwise. `at`: epoch seconds."""

    seq: int
    at: float
    what: str
    written: str
    rebuilt: str


@dataclass(frozen=True, slots=True)
class Replay:
    """`verdicts` were compared, one per judged tick; `states`: the judge's memory at changes and checkpoints."""

    rollout_id: int
    verdicts: int
    states: int
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "same": self.same}


def replay(row: RolloutRow, records: Sequence[Record]) -> Replay:
    """Judge again. After a difference in the judge's memory it goes on from what is written, to find every one."""
    spec = RolloutSpec.from_json(row.spec)
    judgement, progress, stable = Judgement(spec, spec.plan()), Progress(since=row.created_at), row.stable
    differences: list[Difference] = []
    verdicts = states = 0
    for record in records:
        body = record.body
        match record.kind:
            case Kind.TICK:
                tick = tick_from_json(body, judgement.tally.edges_us)
                rebuilt = digest(
                    judgement.observe(
                        tick, progress, stable=stable, candidate=row.candidate, weight_bp=body.get("weight")
                    )
                )
                verdicts += 1
                if rebuilt != body.get("verdict", ""):
                    differences.append(Difference(record.seq, record.at, "verdict", body.get("verdict", ""), rebuilt))
            case Kind.TRANSITION | Kind.CHECKPOINT:
                if record.kind is Kind.TRANSITION:
                    new = Progress.from_json(body["progress"])
                    judgement.enter(progress, new, record.at)
                    progress, stable = new, body["stable"]
                snapshot = judgement.snapshot()
                states += 1
                found = [
                    Difference(record.seq, record.at, name, written, again)
                    for name in snapshot
                    if (written := _text(body[name])) != (again := _text(snapshot[name]))
                ]
                if found:
                    differences += found
                    judgement.restore(body, progress, record.at)
            case Kind.CALIBRATION:
                judgement.calibrate(Calibrated.from_json(body))
            case Kind.NOTE:
                pass
    return Replay(row.id, verdicts, states, tuple(differences))


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
