"""The rollout's state machine: what happened + where it stood -> where it stands now. Pure; no clock, no I/O.

`rollout.controller` feeds it events, writes each change to the journal and then sees to the new state's `acts`.
How evidence becomes ADVANCE or HARM is `rollout.judge`'s business; how weights reach Envoy is the gateway's.

    state          happens                  leads to
    -------------  -----------------------  ------------------------------------------------------------
    pending        activated                loading
                   abort                    aborted
    loading        loaded                   checking
                   load_failed, deadline    rolling_back -> failed
    checking       checked                  shadow, or onward where the plan has none
                   check_failed, deadline   rolling_back -> failed
    shadow         advance                  onward
                   else                     like step
    gate           resume, gate_opened      the next step (baking, when it is the last), or promoting after the last
                   else                     like step; advance means nothing
    step           advance                  onward: the next step; gate where one stands before it
                   harm, candidate lost     rolling_back -> rolled_back
                   not_ready / ready        same step, weight withheld / given back
                   deadline                 as the spec says: same step, paused, or rolling_back -> rolled_back
                   promote                  promoting
    baking         advance                  promoting, or the gate before it
                   else                     like step
    promoting      swapped                  promoted
                   harm                     rolling_back -> rolled_back
    paused         resume                   where it was
                   loaded, checked          paused, to resume one state further
                   promote                  promoting
                   harm, not_ready, ready   like step: a pause stops advances, never protection
    promoted       undo                     rolling_back -> rolled_back, while the rollback window is open
                   window_closed            promoted for good
    rolling_back   withdrawn                rolled_back, aborted or failed
    rolled_back,   retry                    the same; the controller starts a new rollout in its place
    aborted, failed

    pause is possible in loading, checking, shadow, gate, step and baking; abort in all of these and in paused and
    promoting, and leads to rolling_back -> aborted.

    frozen / thawed: between them nothing starts and nothing advances except by promote. What would have come to its
    first step waits at a gate; in every other state an advance is asked for anew. Deadlines do not run.

What holds everywhere (tests/rollout/test_machine.py and test_exploration.py explore it):
weight rises only by CHECKED (to the first step), ADVANCE, a gate that opens after it, or an operator's word; a
candidate that is not ready has no weight; a late event (LOADED after an abort) changes nothing; every state that is
not final has an exit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from rollout.ports import FULL_WEIGHT
from rollout.spec_parts import Gate


class State(StrEnum):
    PENDING = "pending"
    LOADING = "loading"
    CHECKING = "checking"
    SHADOW = "shadow"
    """Both versions answer copies of requests; users see stable only."""
    GATE = "gate"
    """What was asked is shown; an operator, a time or the end of a freeze is waited for."""
    STEP = "step"
    BAKING = "baking"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    FAILED = "failed"


FINAL = frozenset({State.PROMOTED, State.ROLLED_BACK, State.ABORTED, State.FAILED})
"""The rollout is decided. A promoted one can still be undone within its rollback window."""

EXPOSED = frozenset({State.GATE, State.STEP, State.BAKING, State.PAUSED, State.PROMOTING})
"""Users may be seeing the candidate, by the lease."""

_CHECKED = frozenset({State.SHADOW, State.GATE, State.STEP, State.BAKING})
"""The candidate has passed its checks and waits for evidence, a word or a time."""


class Event(StrEnum):
    """Verbs are an operator's; everything else is observed."""

    ACTIVATED = "activated"
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    CHECKED = "checked"
    CHECK_FAILED = "check_failed"
    ADVANCE = "advance"
    HARM = "harm"
    NOT_READY = "not_ready"
    READY = "ready"
    LOST = "lost"
    """Not ready for longer than the grace while the stable version is ready."""
    DEADLINE = "deadline"
    SWAPPED = "swapped"
    """The data plane acknowledged the candidate as stable."""
    WITHDRAWN = "withdrawn"
    """The data plane acknowledged the candidate's removal."""
    WINDOW_CLOSED = "window_closed"
    GATE_OPENED = "gate_opened"
    """The gate's time has passed."""
    FROZEN = "frozen"
    """A freeze of the spec has begun."""
    THAWED = "thawed"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    UNDO = "undo"
    RETRY = "retry"


VERBS = (Event.PAUSE, Event.RESUME, Event.PROMOTE, Event.ABORT, Event.UNDO, Event.RETRY)


class DeadlineAction(StrEnum):
    HOLD = "hold"
    PAUSE = "pause"
    ROLL_BACK = "roll_back"


class Act(StrEnum):
    """What the world must be told in a state. Each is idempotent, so that a restart may repeat it."""

    LOAD = "load"
    CHECK = "check"
    PROMOTE = "promote"
    RESTORE = "restore"
    """Make the old stable version stable again: the routes may already name the candidate."""
    WITHDRAW = "withdraw"
    UNLOAD_CANDIDATE = "unload_candidate"
    UNLOAD_STABLE = "unload_stable"


@dataclass(frozen=True, slots=True)
class Plan:
    """The part of the spec that the machine reads.

    `weights_bp` rise; the last one is what the candidate gets while baking (full weight less the holdback).
    `shadow`: whether answers to copied requests are compared before the first step.
    """

    weights_bp: tuple[int, ...]
    on_deadline: DeadlineAction = DeadlineAction.HOLD
    shadow: bool = False
    gates: tuple[Gate, ...] = ()

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.weights_bp), self.weights_bp, strict=False))
        if not self.weights_bp or not rising or self.weights_bp[-1] > FULL_WEIGHT:
            raise ValueError(f"weights_bp: expected rising values of 1..{FULL_WEIGHT}, received {self.weights_bp}")

    def gate(self, before: int) -> Gate | None:
        """What stands before a step (from 0), or before the promotion when there is no such step."""
        return next((gate for gate in self.gates if gate.before == before), None)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one rollout stands.

    `step` counts from 0; -1 before the first. `weight_bp` is what evidence or an operator granted; while
    `withheld` the candidate gets none of it. `since` is when the state or step was entered (epoch seconds).
    `resume` (paused only): the state to go back to. `outcome` (rolling back only): the final state to come.
    `swapped`: the routes may name the candidate as stable. `undoable` (promoted only): the old stable version
    is still loaded. `overdue`: the deadline passed and its action was taken. `frozen_at`: when the freeze in force
    was noticed (None: none); `frozen_s`: seconds of earlier freezes since `since`. `exposed_at`: when the first step
    began (None: not yet).
    """

    state: State = State.PENDING
    step: int = -1
    weight_bp: int = 0
    peak_bp: int = 0
    since: float = 0.0
    reason: str = ""
    withheld: bool = False
    overdue: bool = False
    swapped: bool = False
    undoable: bool = False
    frozen_at: float | None = None
    frozen_s: float = 0.0
    exposed_at: float | None = None
    resume: State | None = None
    outcome: State | None = None

    @property
    def lease_bp(self) -> int:
        """The weight to publish now."""
        return self.weight_bp if self.state in EXPOSED and not self.withheld else 0

    @property
    def mirrored(self) -> bool:
        """Whether requests are copied now, for both versions to answer."""
        shadow = self.state is State.SHADOW or (self.state is State.PAUSED and self.resume is State.SHADOW)
        return shadow and not self.withheld

    @property
    def frozen(self) -> bool:
        return self.frozen_at is not None

    def waited_s(self, at: float) -> float:
        """How long it has been where it is, freezes not counted: what deadlines go by."""
        return (at if self.frozen_at is None else self.frozen_at) - self.since - self.frozen_s

    @property
    def settled(self) -> bool:
        """Nothing more can happen by itself or by undo."""
        return self.state in FINAL and not self.undoable

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"state": self.state.value}
        blank = Progress()
        for name in self.__slots__:
            if name != "state" and (field := getattr(self, name)) != getattr(blank, name):
                value[name] = field
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        known = dict(value)
        for name in ("state", "resume", "outcome"):
            if known.get(name) is not None:
                known[name] = State(known[name])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Happening:
    """One event: `at` in epoch seconds, `reason` in words, `by` who said so (verbs only)."""

    event: Event
    at: float
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`refusal` is non-empty only for a verb that is impossible now; `progress` is then unchanged."""

    progress: Progress
    acts: tuple[Act, ...] = ()
    refusal: str = ""


def decide(plan: Plan, now: Progress, happening: Happening) -> Decision:
    """Where the rollout stands after the event, and what to do about it. Total: never raises."""
    if happening.event in VERBS and happening.event not in verbs(now):
        return Decision(now, refusal=_refusal(now, happening.event))
    new = _next(plan, now, happening)
    return Decision(new, acts(new) if acts(new) != acts(now) else ())


def acts(progress: Progress) -> tuple[Act, ...]:
    """What the state asks of the world; also what a restarted controller does again. Weights are not acts: the
    controller's loop publishes `lease_bp` for as long as it lives."""
    match progress.state:
        case State.LOADING:
            return (Act.LOAD,)
        case State.CHECKING:
            return (Act.CHECK,)
        case State.PAUSED if progress.resume is State.LOADING:
            return (Act.LOAD,)
        case State.PAUSED if progress.resume is State.CHECKING:
            return (Act.CHECK,)
        case State.PROMOTING:
            return (Act.PROMOTE,)
        case State.ROLLING_BACK:
            undo_routes = (Act.RESTORE,) if progress.swapped else ()
            return (*undo_routes, Act.WITHDRAW)
        case State.ROLLED_BACK | State.ABORTED | State.FAILED:
            return (Act.UNLOAD_CANDIDATE,)
        case State.PROMOTED if not progress.undoable:
            return (Act.UNLOAD_STABLE,)
        case _:
            return ()


def verbs(now: Progress) -> tuple[Event, ...]:
    """The operator's verbs that are possible now."""
    match now.state:
        case State.PENDING:
            return (Event.ABORT,)
        case State.LOADING | State.CHECKING:
            return (Event.PAUSE, Event.ABORT)
        case State.SHADOW | State.STEP | State.BAKING:
            promote = () if now.withheld else (Event.PROMOTE,)
            return (Event.PAUSE, *promote, Event.ABORT)
        case State.GATE:
            resume = () if now.withheld or now.frozen else (Event.RESUME,)
            promote = () if now.withheld else (Event.PROMOTE,)
            return (*resume, Event.PAUSE, *promote, Event.ABORT)
        case State.PAUSED:
            loaded = now.resume in _CHECKED and not now.withheld
            return (Event.RESUME, *((Event.PROMOTE,) if loaded else ()), Event.ABORT)
        case State.PROMOTING:
            return (Event.ABORT,)
        case State.PROMOTED:
            return (Event.UNDO,) if now.undoable else ()
        case State.ROLLING_BACK:
            return ()
        case State.ROLLED_BACK | State.ABORTED | State.FAILED:
            return (Event.RETRY,)


def _next(plan: Plan, now: Progress, happening: Happening) -> Progress:
    event = happening.event
    match now.state, event:
        case _, Event.RETRY:
            return now
        case _, (Event.FROZEN | Event.THAWED):
            return _freeze(now, happening)
        case State.PENDING, Event.ABORT:
            return _enter(now, State.ABORTED, happening)
        case _, Event.ABORT:
            return _back(now, happening, outcome=State.ABORTED)
        case State.PENDING, Event.ACTIVATED if not now.frozen:
            return _enter(now, State.LOADING, happening)
        case State.LOADING, Event.LOADED:
            return _enter(now, State.CHECKING, happening)
        case State.CHECKING, Event.CHECKED:
            return _enter(now, State.SHADOW, happening) if plan.shadow else _onward(plan, now, happening)
        case ((State.LOADING | State.CHECKING), (Event.LOAD_FAILED | Event.CHECK_FAILED | Event.DEADLINE)):
            return _back(now, happening, outcome=State.FAILED)
        case State.PAUSED, _:
            return _while_paused(plan, now, happening)
        case ((State.SHADOW | State.GATE | State.STEP | State.BAKING | State.PROMOTING), _):
            return _while_checked(plan, now, happening)
        case State.PROMOTED, Event.UNDO:
            return _back(now, happening, outcome=State.ROLLED_BACK)
        case State.PROMOTED, Event.WINDOW_CLOSED:
            return replace(now, undoable=False)
        case State.ROLLING_BACK, Event.WITHDRAWN:
            assert now.outcome is not None
            return replace(_enter(now, now.outcome, happening), reason=now.reason, outcome=None, swapped=False)
        case ((State.LOADING | State.CHECKING), Event.PAUSE):
            return replace(_enter(now, State.PAUSED, happening), resume=now.state)
        case _:
            return now


def _while_checked(plan: Plan, now: Progress, happening: Happening) -> Progress:
    """shadow, gate, step, baking and promoting: the candidate is routable, and users may see it."""
    waiting = now.state is not State.PROMOTING
    match happening.event:
        case Event.HARM | Event.LOST:
            return _back(now, happening, outcome=State.ROLLED_BACK)
        case Event.NOT_READY:
            return replace(now, withheld=True)
        case Event.READY:
            return replace(now, withheld=False)
        case Event.PAUSE if waiting:
            return replace(_enter(now, State.PAUSED, happening), resume=now.state)
        case Event.PROMOTE if waiting:
            return _promoting(now, happening)
        case Event.ADVANCE if waiting and now.state is not State.GATE and not now.withheld and not now.frozen:
            return _onward(plan, now, happening)
        case Event.GATE_OPENED if now.state is State.GATE and not now.withheld and not now.frozen:
            gate = plan.gate(now.step + 1)
            by_hand = gate is not None and gate.seconds is None
            return now if by_hand else _through(plan, now, happening)
        case Event.RESUME if now.state is State.GATE:
            return _through(plan, now, happening)
        case Event.DEADLINE if waiting and not now.overdue and not now.frozen:
            return _overdue(plan, now, happening)
        case Event.SWAPPED if not waiting:
            promoted = replace(_enter(now, State.PROMOTED, happening), undoable=True, withheld=False, frozen_at=None)
            return replace(promoted, reason=now.reason, weight_bp=FULL_WEIGHT, peak_bp=FULL_WEIGHT)
        case _:
            return now


def _while_paused(plan: Plan, now: Progress, happening: Happening) -> Progress:
    assert now.resume is not None
    checked = now.resume in _CHECKED
    match now.resume, happening.event:
        case _, Event.RESUME if now.resume is State.STEP and now.step < 0:
            return _onward(plan, replace(now, resume=None), happening)
        case _, Event.RESUME:
            return replace(_enter(now, now.resume, happening), resume=None)
        case State.LOADING, Event.LOADED:
            return replace(now, resume=State.CHECKING)
        case State.CHECKING, Event.CHECKED:
            return replace(now, resume=State.SHADOW if plan.shadow else State.STEP)
        case ((State.LOADING | State.CHECKING), (Event.LOAD_FAILED | Event.CHECK_FAILED)):
            return _back(now, happening, outcome=State.FAILED)
        case _, (Event.HARM | Event.LOST) if checked:
            return _back(now, happening, outcome=State.ROLLED_BACK)
        case _, Event.NOT_READY if checked:
            return replace(now, withheld=True)
        case _, Event.READY if checked:
            return replace(now, withheld=False)
        case _, Event.PROMOTE if checked:
            return _promoting(replace(now, resume=None), happening)
        case _:
            return now


def _freeze(now: Progress, happening: Happening) -> Progress:
    """A freeze begins or ends. It means nothing to what is decided, or on its way back."""
    if now.state in FINAL or now.state is State.ROLLING_BACK:
        return now
    if happening.event is Event.FROZEN:
        return now if now.frozen else replace(now, frozen_at=happening.at)
    if now.frozen_at is None:
        return now
    return replace(now, frozen_at=None, frozen_s=now.frozen_s + happening.at - now.frozen_at)


def _onward(plan: Plan, now: Progress, happening: Happening) -> Progress:
    """Nothing more is to be shown here."""
    if now.frozen or plan.gate(now.step + 1) is not None:
        return _enter(now, State.GATE, happening)
    return _through(plan, now, happening)


def _through(plan: Plan, now: Progress, happening: Happening) -> Progress:
    last = now.step + 1 >= len(plan.weights_bp)
    return _promoting(now, happening) if last else _step(plan, now, happening, index=now.step + 1)


def _enter(now: Progress, state: State, happening: Happening) -> Progress:
    frozen_at = None if now.frozen_at is None else happening.at
    entered = replace(now, state=state, since=happening.at, reason=_words(happening), overdue=False)
    return replace(entered, frozen_at=frozen_at, frozen_s=0.0)


def _step(plan: Plan, now: Progress, happening: Happening, *, index: int) -> Progress:
    weight = plan.weights_bp[index]
    state = State.BAKING if index + 1 == len(plan.weights_bp) else State.STEP
    exposed_at = happening.at if now.exposed_at is None else now.exposed_at
    entered = replace(_enter(now, state, happening), exposed_at=exposed_at)
    return replace(entered, step=index, weight_bp=weight, peak_bp=max(now.peak_bp, weight))


def _promoting(now: Progress, happening: Happening) -> Progress:
    return replace(_enter(now, State.PROMOTING, happening), swapped=True)


def _back(now: Progress, happening: Happening, *, outcome: State) -> Progress:
    if now.state is State.ROLLING_BACK or now.settled:
        return now
    back = _enter(now, State.ROLLING_BACK, happening)
    return replace(back, weight_bp=0, withheld=False, undoable=False, frozen_at=None, resume=None, outcome=outcome)


def _overdue(plan: Plan, now: Progress, happening: Happening) -> Progress:
    match plan.on_deadline:
        case DeadlineAction.HOLD:
            return replace(now, overdue=True)
        case DeadlineAction.PAUSE:
            return replace(_enter(now, State.PAUSED, happening), resume=now.state, overdue=True)
        case DeadlineAction.ROLL_BACK:
            return _back(now, happening, outcome=State.ROLLED_BACK)


def _words(happening: Happening) -> str:
    if happening.event not in VERBS:
        return happening.reason
    said = f"{happening.event.value} by {happening.by or 'an operator'}"
    return f"{said}: {happening.reason}" if happening.reason else said


def _refusal(now: Progress, verb: Event) -> str:
    possible = ", ".join(v.value for v in verbs(now)) or "none"
    hint = ""
    if verb in (Event.PROMOTE, Event.RESUME) and now.withheld:
        hint = "; the candidate is not ready"
    elif verb is Event.RESUME and now.state is State.GATE:
        hint = "; a freeze of its spec is in force: promote overrules it"
    elif verb is Event.UNDO and now.state is State.PROMOTED:
        hint = "; the rollback window is closed and the old version unloaded: start a rollout back to it"
    elif verb is Event.UNDO and Event.ABORT in verbs(now):
        hint = "; it is not promoted yet: abort takes the candidate back"
    elif verb is Event.ABORT and now.state is State.PROMOTED:
        hint = "; it is promoted: undo moves back to the old version"
    return f"cannot {verb.value} a rollout that is {now.state.value}{hint}. Possible now: {possible}"
