"""Where a rollout stands, as one value for people and programs: `penstock rollout status|watch`, REST, console.

Made by the controller from a `Run` (live, or rebuilt from the journal when it is over). Words about the past are
`rollout.explain`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rollout.judge import Forecast
from rollout.judge.verdict import MetricReport
from rollout.machine import FINAL, Event, State, verbs
from rollout.outlook import Outlook
from rollout.ports import FULL_WEIGHT, ArmCounts
from rollout.records import quantile_us
from rollout.run import Run, Trouble

_JUDGED_STEP = (State.SHADOW, State.STEP, State.BAKING)
_WITH_DEADLINE = (State.LOADING, State.CHECKING, State.SHADOW, State.STEP, State.BAKING)


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version since the first step. Latency in microseconds; None without data."""

    version: int
    requests: int
    errors: int
    p50_us: float | None
    p99_us: float | None
    labelled: int
    wrong: int

    @property
    def error_share(self) -> float | None:
        return self.errors / self.requests if self.requests else None

    @property
    def accuracy(self) -> float | None:
        return 1.0 - self.wrong / self.labelled if self.labelled else None


@dataclass(frozen=True, slots=True)
class MetricStatus:
    """How far the evidence of one metric is, 0..1, towards each decision; 1 means there is enough."""

    metric: str
    toward_advance: float
    toward_rollback: float
    harm: str
    missing: str
    missing_requests: int | None


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """Times are epoch seconds, `_s` durations, `_bp` basis points of traffic.

    `weight_bp` is published now; `granted_bp` is what evidence or an operator allowed. `step` counts from 1; 0 before
    the first. `waiting_for` is the judge's reason to hold. `users_share` is the largest share of callers that has
    been sent to the candidate. `undo_left_s` is set while undo is possible. `mirror_bp` is the share of requests that
    is copied to both versions now. `frozen_until` is when the freeze in force ends, `gate_left_s` how long a gate with
    a time is still closed. `forecast` is of the present step, at the traffic seen in it; `outlook` is what was expected
    of every step when the rollout was started, until the control plane restarts.
    """

    rollout_id: int
    model: str
    stable: int
    candidate: int
    state: State
    step: int
    steps: int
    step_weights_bp: tuple[int, ...]
    weight_bp: int
    granted_bp: int
    users_share: float
    created_at: float
    since: float
    in_state_s: float
    reason: str
    waiting_for: str
    withheld: bool
    overdue: bool
    deadline_left_s: float | None
    undo_left_s: float | None
    versions: tuple[VersionStatus, ...]
    metrics: tuple[MetricStatus, ...]
    troubles: tuple[Trouble, ...]
    verbs: tuple[Event, ...]
    mirror_bp: int = 0
    frozen_until: float | None = None
    gate_left_s: float | None = None
    forecast: Forecast | None = None
    outlook: Outlook | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    def version(self, number: int) -> VersionStatus | None:
        return next((v for v in self.versions if v.version == number), None)

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for shown, version in zip(value["versions"], self.versions, strict=True):
            shown["error_share"], shown["accuracy"] = version.error_share, version.accuracy
        value["final"] = self.final
        return value


def status_of(run: Run, now: float, troubles: tuple[Trouble, ...] = ()) -> RolloutStatus:
    """`troubles`: what the controller itself has trouble with, beside the run's own."""
    progress, spec = run.progress, run.spec
    in_state = max(0.0, now - progress.since)
    return RolloutStatus(
        rollout_id=run.id,
        model=run.model,
        stable=run.stable,
        candidate=run.candidate,
        state=progress.state,
        step=progress.step + 1,
        steps=len(run.plan.weights_bp),
        step_weights_bp=run.plan.weights_bp,
        weight_bp=FULL_WEIGHT if progress.state is State.PROMOTED else run.lease_bp,
        granted_bp=progress.weight_bp,
        users_share=progress.peak_bp / FULL_WEIGHT,
        created_at=run.created_at,
        since=progress.since,
        in_state_s=in_state,
        reason=progress.reason,
        waiting_for=_waiting_for(run),
        withheld=progress.withheld,
        overdue=progress.overdue,
        deadline_left_s=max(0.0, spec.deadline_s - progress.waited_s(now))
        if progress.state in _WITH_DEADLINE
        else None,
        undo_left_s=max(0.0, spec.rollback_window_s - in_state) if progress.undoable else None,
        versions=_versions(run.tally.arms, run.tally.edges_us, (run.stable, run.candidate)),
        metrics=tuple(_metric(report) for report in (run.verdict.metrics if run.verdict else ())),
        troubles=(*run.troubles.values(), *troubles),
        verbs=verbs(progress),
        mirror_bp=run.mirror_bp,
        frozen_until=run.frozen_until,
        gate_left_s=_gate_left_s(run, now),
        forecast=run.foresight.of(progress, now),
        outlook=run.outlook,
    )


def _waiting_for(run: Run) -> str:
    progress, words = run.progress, ""
    if progress.state is State.GATE and run.gate is not None:
        by_hand = run.gate.seconds is None
        words = "an operator: `penstock rollout resume`" if by_hand else f"its pause of {run.gate.seconds:g} s"
    elif progress.state in _JUDGED_STEP and run.verdict is not None:
        words = run.verdict.reason
    if progress.frozen and run.frozen_until is not None:
        end = datetime.fromtimestamp(run.frozen_until, UTC)
        freeze = f"the end of the freeze at {end:%Y-%m-%d %H:%M} UTC"
        return f"{freeze}; {words}" if words else freeze
    return words


def _deadline_left_s(run: Run, now: float) -> float | None:
    if run.progress.state not in _WITH_DEADLINE and (run.gate is None or run.gate.seconds is not None):
        return None
    return max(0.0, run.spec.deadline_s - run.progress.waited_s(now))


def _gate_left_s(run: Run, now: float) -> float | None:
    if run.gate is None or run.gate.seconds is None:
        return None
    return max(0.0, run.gate.seconds - run.progress.waited_s(now))


def _versions(
    arms: Mapping[int, ArmCounts], edges_us: tuple[int, ...], order: tuple[int, int]
) -> tuple[VersionStatus, ...]:
    counts = {version: arms.get(version, ArmCounts()) for version in order}
    return tuple(
        VersionStatus(
            version=version,
            requests=arm.requests,
            errors=arm.bad,
            p50_us=quantile_us(arm.latency, edges_us, 0.5),
            p99_us=quantile_us(arm.latency, edges_us, 0.99),
            labelled=arm.labelled,
            wrong=arm.wrong,
        )
        for version, arm in counts.items()
    )


def _metric(report: MetricReport) -> MetricStatus:
    return MetricStatus(
        metric=report.metric.value,
        toward_advance=1.0 if report.safe else _fraction(report.safe_log_e, report.safe_log_needed),
        toward_rollback=_fraction(report.harm_log_e, report.harm_log_needed),
        harm=report.harm_words,
        missing=report.safe_words,
        missing_requests=report.missing_requests,
    )


def _fraction(log_e: float, needed: float) -> float:
    if math.isnan(log_e) or needed <= 0:
        return 0.0
    return min(1.0, max(0.0, log_e / needed))
