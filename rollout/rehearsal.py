"""Runs a spec offline, on traffic that is described or was recorded: `penstock rollout plan`.

The machine and the judge are the real ones; servers, routes and time are left out, so that hours pass in seconds.
Says what would happen, not what will: a candidate like the one described (or recorded) behaves as it did there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rollout.calibration import Calibrated
from rollout.judge import Flow
from rollout.judge.verdict import Decision as Ruling
from rollout.judge.verdict import MetricReport
from rollout.judgement import Judgement
from rollout.machine import FINAL, Event, Happening, Plan, Progress, State, decide
from rollout.ports import FULL_WEIGHT, ArmCounts, Tick
from rollout.spec import RolloutSpec

STABLE, CANDIDATE = 1, 2
LONGEST_S = 24 * 3600.0
_OBSERVED = {Ruling.ADVANCE: Event.ADVANCE, Ruling.ROLL_BACK: Event.HARM}

_AT_ONCE = frozenset({State.LOADING, State.CHECKING, State.ROLLING_BACK, State.PROMOTING})
"""States that take no time without servers and routes."""


class Traffic(Protocol):
    """Requests as they would come, for versions `STABLE` and `CANDIDATE`."""

    @property
    def flow(self) -> Flow:
        """The same in figures, for the forecast."""
        ...

    @property
    def calibrated(self) -> Calibrated | None:
        """What the recorded rollout was calibrated on; None for traffic that is made up."""
        ...

    def tick(self, at: float, weight_bp: int) -> Tick:
        """The next stretch of traffic, with `weight_bp` basis points of it on the candidate."""
        ...


@dataclass(frozen=True, slots=True)
class Moment:
    """One change: seconds since the candidate was ready, and where the rollout stands from there on."""

    after_s: float
    state: State
    step: int
    weight_bp: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`state` is final, or where it still stood after `seconds`; `waiting_for` says why then. `exposed` requests went
    to the candidate, `failed` of them. `metrics` are those of the last verdict."""

    state: State
    seconds: float
    exposed: int
    failed: int
    waiting_for: str
    moments: tuple[Moment, ...]
    metrics: tuple[MetricReport, ...] = ()
    assumed: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rehearse(spec: RolloutSpec, traffic: Traffic, *, limit_s: float = LONGEST_S) -> Rehearsal:
    """Run the spec until it is decided, or for `limit_s` seconds of its own time."""
    plan = spec.plan()
    # A person, a calendar and a mirror are not here to be asked.
    judgement = Judgement(spec, plan)
    if spec.calibration and traffic.calibrated is not None:
        judgement.calibrate(traffic.calibrated)
    course = _Course(judgement, Plan(plan.weights_bp, plan.on_deadline, gates=plan.gates))
    for event in (Event.ACTIVATED, Event.LOADED, Event.CHECKED):
        course.happens(event, "")
    while course.progress.state not in FINAL and course.at < limit_s:
        match course.progress.state:
            case State.GATE if _time_of(course) is None:
                course.happens(Event.RESUME, "the gate was opened at once, for this rehearsal")
            case State.PAUSED:
                break
            case State.PROMOTING:
                course.happens(Event.SWAPPED, course.progress.reason)
            case State.ROLLING_BACK:
                course.happens(Event.WITHDRAWN, course.progress.reason)
            case _:
                course.watch(traffic.tick(course.at, course.progress.lease_bp))
                _watch_time(course, spec)
    return course.result(_assumptions(spec))


class _Course:
    """What has happened so far."""

    def __init__(self, judgement: Judgement, plan: Plan) -> None:
        self.judgement, self.plan = judgement, plan
        self.progress, self.at = Progress(), 0.0
        self._moments: list[Moment] = []
        self._seen = ArmCounts()

    def happens(self, event: Event, reason: str) -> None:
        new = decide(self.plan, self.progress, Happening(event, self.at, reason)).progress
        self.judgement.enter(self.progress, new, self.at)
        changed = (new.state, new.step, new.lease_bp) != (
            self.progress.state,
            self.progress.step,
            self.progress.lease_bp,
        )
        if changed and new.state not in _AT_ONCE:
            weight = FULL_WEIGHT if new.state is State.PROMOTED else new.lease_bp
            self._moments.append(Moment(self.at, new.state, new.step + 1, weight, new.reason))
        self.progress = new

    def watch(self, tick: Tick) -> None:
        self.at = tick.at
        arm = tick.arms.get(CANDIDATE, ArmCounts())
        self._seen = ArmCounts(ok=self._seen.ok + arm.ok, bad=self._seen.bad + arm.bad)
        if self.judgement.judges(self.progress):
            verdict = self.judgement.observe(tick, self.progress, stable=STABLE, candidate=CANDIDATE)
            if verdict.decision in _OBSERVED:
                self.happens(_OBSERVED[verdict.decision], verdict.reason)

    def result(self, assumed: tuple[str, ...]) -> Rehearsal:
        verdict, final = self.judgement.verdict, self.progress.state in FINAL
        return Rehearsal(
            state=self.progress.state,
            seconds=self.at,
            exposed=self._seen.requests,
            failed=self._seen.bad,
            waiting_for="" if final or verdict is None else verdict.reason,
            moments=tuple(self._moments),
            metrics=() if verdict is None else verdict.metrics,
            assumed=assumed,
        )


def _time_of(course: _Course) -> float | None:
    gate = course.plan.gate(course.progress.step + 1)
    return None if gate is None else gate.seconds


def _watch_time(course: _Course, spec: RolloutSpec) -> None:
    waited, verdict = course.progress.waited_s(course.at), course.judgement.verdict
    if course.progress.state is State.GATE:
        shown = course.progress.step < 0 or (verdict is not None and verdict.decision is Ruling.ADVANCE)
        if shown and waited >= (_time_of(course) or 0.0):
            course.happens(Event.GATE_OPENED, "its time has passed")
    elif not course.progress.overdue and waited >= spec.deadline_s:
        last = f"; last: {verdict.reason}" if verdict else ""
        course.happens(Event.DEADLINE, f"the deadline of {spec.deadline_s:g} s passed{last}")


def _assumptions(spec: RolloutSpec) -> tuple[str, ...]:
    """What the rehearsal took for granted."""
    assumed: Sequence[tuple[object, str]] = (
        (spec.shadow, "the shadow step is passed: this traffic has no answers to compare"),
        (spec.golden, "the golden set is passed"),
        (any(gate.seconds is None for gate in spec.gates), "gates are opened by hand at once"),
        (spec.freeze, "no freeze is in force"),
    )
    return tuple(words for present, words in assumed if present)
