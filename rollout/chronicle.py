"""A rollout's journal as time series: weights, evidence, errors and latency of both versions, and what happened when.

Drawn by `rollout.picture`. The verdict of every tick is judged again, as `rollout.replay` does, because the journal
keeps digests of them only. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rollout.calibration import Calibrated
from rollout.journal import Kind, Record, RolloutRow
from rollout.judge.verdict import Verdict
from rollout.judgement import Judgement
from rollout.machine import Event, Progress, State
from rollout.ports import FULL_WEIGHT, ArmCounts, Tick
from rollout.records import Tally, quantile_us, tick_from_json
from rollout.spec import RolloutSpec

POINTS = 80
"""Points of a curve: with more, single failures would look like spikes."""

_QUIET = frozenset({Event.FROZEN, Event.THAWED, Event.WINDOW_CLOSED, Event.WITHDRAWN})
"""Changes that a picture of the rollout does not name."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened `after_s` seconds after the rollout's creation, and the candidate's weight from there on."""

    after_s: float
    event: Event
    state: State
    weight_bp: int
    mirrored: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One version in a stretch of time. None where it says nothing: no request, no answer, no label."""

    error_share: float | None
    wrong_share: float | None
    p50_us: float | None
    p99_us: float | None
    requests: int


@dataclass(frozen=True, slots=True)
class Point:
    """A stretch of time that ends `after_s` seconds after the creation.

    `toward_rollback` and `toward_advance` per metric, 1 being enough, are those at its end. `missing`: no telemetry.
    """

    after_s: float
    stable: Sample
    candidate: Sample
    missing: bool
    toward_rollback: Mapping[str, float] = field(default_factory=dict)
    toward_advance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chronicle:
    row: RolloutRow
    changes: tuple[Change, ...]
    points: tuple[Point, ...]

    @property
    def seconds(self) -> float:
        ends = [change.after_s for change in self.changes] + [point.after_s for point in self.points]
        return max(ends, default=0.0)


def chronicle(row: RolloutRow, records: Sequence[Record]) -> Chronicle:
    spec = RolloutSpec.from_json(row.spec)
    judgement, progress = Judgement(spec, spec.plan()), Progress(since=row.created_at)
    changes: list[Change] = []
    seen: list[tuple[Tick, Verdict]] = []
    for record in records:
        body = record.body
        if record.kind is Kind.TICK:
            tick = tick_from_json(body, judgement.tally.edges_us)
            verdict = judgement.observe(
                tick, progress, stable=row.stable, candidate=row.candidate, weight_bp=body.get("weight")
            )
            seen.append((replace(tick, at=record.at - row.created_at), verdict))
        elif record.kind is Kind.CALIBRATION:
            judgement.calibrate(Calibrated.from_json(body))
        elif record.kind is Kind.TRANSITION:
            new, event = Progress.from_json(body["progress"]), Event(body["event"])
            judgement.enter(progress, new, record.at)
            progress = new
            if event not in _QUIET:
                weight = FULL_WEIGHT if new.state is State.PROMOTED else new.lease_bp
                after_s = record.at - row.created_at
                changes.append(Change(after_s, event, new.state, weight, new.mirrored, body["reason"]))
    return Chronicle(row, tuple(changes), tuple(_points(row, seen)))


def _points(row: RolloutRow, seen: Sequence[tuple[Tick, Verdict]]) -> list[Point]:
    size = max(1, -(-len(seen) // POINTS))
    return [_point(row, seen[start : start + size]) for start in range(0, len(seen), size)]


def _point(row: RolloutRow, stretch: Sequence[tuple[Tick, Verdict]]) -> Point:
    whole = Tally()
    for tick, _ in stretch:
        whole = whole.plus(tick)
    last, verdict = stretch[-1]
    return Point(
        after_s=last.at,
        stable=_sample(whole.arms.get(row.stable, ArmCounts()), whole.edges_us),
        candidate=_sample(whole.arms.get(row.candidate, ArmCounts()), whole.edges_us),
        missing=all(tick.missing for tick, _ in stretch),
        toward_rollback={r.metric.value: _part(r.harm_log_e, r.harm_log_needed) for r in verdict.metrics},
        toward_advance={
            r.metric.value: 1.0 if r.safe else _part(r.safe_log_e, r.safe_log_needed) for r in verdict.metrics
        },
    )


def _sample(arm: ArmCounts, edges_us: tuple[int, ...]) -> Sample:
    return Sample(
        error_share=arm.bad / arm.requests if arm.requests else None,
        wrong_share=arm.wrong / arm.labelled if arm.labelled else None,
        p50_us=quantile_us(arm.latency, edges_us, 0.5),
        p99_us=quantile_us(arm.latency, edges_us, 0.99),
        requests=arm.requests,
    )


def _part(log_e: float, needed: float) -> float:
    return min(1.0, max(0.0, log_e / needed)) if needed > 0 else 0.0
