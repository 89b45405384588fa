"""The state machine, explored whole: every state it can reach, by every event, until nothing new turns up."""

from __future__ import annotations

from collections import deque
from functools import cache

import pytest

from rollout.machine import (
    EXPOSED,
    FINAL,
    VERBS,
    DeadlineAction,
    Event,
    Happening,
    Plan,
    Progress,
    State,
    acts,
    decide,
    verbs,
)
from rollout.spec_parts import Gate

GATES = (Gate(0), Gate(1, 600.0), Gate(3))
PLANS = [
    Plan(weights, action, shadow=shadow, gates=gates)
    for weights in ((1000, 3000, 9500), (9500,))
    for action in DeadlineAction
    for shadow, gates in ((False, ()), (True, GATES))
]
GRANTS = {Event.CHECKED, Event.ADVANCE, Event.PROMOTE, Event.SWAPPED, Event.RESUME, Event.GATE_OPENED}
Edge = tuple[Progress, Event, Progress]


@cache
def edges(plan: Plan) -> tuple[Edge, ...]:
    """Every possible change, from `pending` on. Time and words stand still, so that the states are finite."""
    found: list[Edge] = []
    start = Progress()
    seen, queue = {start}, deque([start])
    while queue:
        now = queue.popleft()
        for event in Event:
            new = decide(plan, now, Happening(event, at=0.0)).progress
            found.append((now, event, new))
            key = _plain(new)
            if key not in seen:
                seen.add(key)
                queue.append(key)
    return tuple(found)


def _plain(progress: Progress) -> Progress:
    return Progress.from_json({name: v for name, v in progress.to_json().items() if name != "reason"})


all_plans = pytest.mark.parametrize(
    "plan", PLANS, ids=lambda p: f"{len(p.weights_bp)} steps, {p.on_deadline}, {'shadow' if p.shadow else 'plain'}"
)


@all_plans
def test_every_state_is_reached(plan: Plan) -> None:
    expected = set(State) - ({State.STEP} if len(plan.weights_bp) == 1 else set())
    # A freeze alone leads to a gate before the first step.
    assert {now.state for now, _, _ in edges(plan)} == expected - (set() if plan.shadow else {State.SHADOW})


@all_plans
def test_weight_rises_only_by_evidence_or_an_operators_word(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if new.weight_bp > now.weight_bp:
            assert event in GRANTS, (now, event, new)
            assert event is not Event.RESUME or now.step < 0 or now.state is State.GATE, "a judged weight was raised"


@all_plans
def test_published_weight_never_exceeds_what_was_granted(plan: Plan) -> None:
    for now, event, new in edges(plan):
        assert new.lease_bp <= new.weight_bp
        if new.lease_bp > now.lease_bp and event not in GRANTS:
            assert event is Event.READY, (now, event, new)
            assert new.weight_bp == now.weight_bp


@all_plans
def test_a_candidate_that_is_not_ready_gets_no_weight_and_no_promotion(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if now.withheld and event is not Event.READY:
            assert new.lease_bp == 0, (now, event, new)
            assert event is not Event.PROMOTE or new.state is not State.PROMOTING or now.state is State.PROMOTING


@all_plans
def test_nothing_starts_or_advances_in_a_freeze_except_by_promote(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if now.frozen and new.weight_bp > now.weight_bp:
            assert event is Event.SWAPPED, (now, event, new)
        if now.frozen and new.step > now.step:
            raise AssertionError((now, event, new))
        if now.frozen and now.state is State.PENDING:
            assert new.state in (State.PENDING, State.ABORTED)
        if now.frozen and new.state is State.PROMOTING and now.state is not State.PROMOTING:
            assert event is Event.PROMOTE


@all_plans
def test_a_gate_by_hand_opens_by_an_operators_word_only(plan: Plan) -> None:
    for now, event, new in edges(plan):
        gate = plan.gate(now.step + 1)
        if now.state is State.GATE and gate is not None and gate.seconds is None:
            moved_on = new.step > now.step or new.state is State.PROMOTING
            assert not moved_on or event in (Event.RESUME, Event.PROMOTE), (now, event, new)


@all_plans
def test_no_gate_is_passed_over(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if new.step > now.step and plan.gate(new.step) is not None:
            assert now.state is State.GATE, (now, event, new)


@all_plans
def test_harm_takes_an_exposed_candidate_back_even_when_paused(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if event is Event.HARM and now.state in EXPOSED and now.step >= 0:
            assert new.state is State.ROLLING_BACK
            assert new.lease_bp == 0


@all_plans
def test_abort_wins_wherever_the_rollout_is_under_way(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if event is Event.ABORT and now.state not in FINAL and now.state is not State.ROLLING_BACK:
            assert new.lease_bp == 0
            assert new.state is State.ABORTED or new.outcome is State.ABORTED


@all_plans
def test_what_was_promoted_in_the_routes_is_restored_on_the_way_back(plan: Plan) -> None:
    for now, _, new in edges(plan):
        if now.state in (State.PROMOTING, State.PROMOTED) and new.state is State.ROLLING_BACK:
            assert acts(new)[0] == "restore"


@all_plans
def test_every_state_that_is_not_settled_has_an_exit(plan: Plan) -> None:
    exits: dict[Progress, set[State]] = {}
    for now, _, new in edges(plan):
        exits.setdefault(now, set()).add(new.state)
    for now, states in exits.items():
        assert now.settled or now.undoable or states - {now.state}, now


@all_plans
def test_decided_is_decided(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if now.state in FINAL and not now.undoable:
            assert new == now, (now, event, new)


@all_plans
def test_impossible_verbs_are_refused_in_words_and_change_nothing(plan: Plan) -> None:
    for now in {now for now, _, _ in edges(plan)}:
        for verb in VERBS:
            decision = decide(plan, now, Happening(verb, at=0.0))
            assert bool(decision.refusal) == (verb not in verbs(now))
            if decision.refusal:
                assert decision.progress == now
                assert now.state.value in decision.refusal
                assert all(possible.value in decision.refusal for possible in verbs(now))


@all_plans
def test_progress_survives_json(plan: Plan) -> None:
    for now, _, new in edges(plan):
        assert Progress.from_json(new.to_json()) == new
        assert Progress.from_json(now.to_json()) == now


@all_plans
def test_when_users_first_saw_the_candidate_is_known_from_the_first_step_on(plan: Plan) -> None:
    for now, _, new in edges(plan):
        assert (new.exposed_at is None) == (new.step < 0)
        assert now.exposed_at in (None, new.exposed_at)


def test_a_later_step_does_not_change_when_the_first_one_began() -> None:
    plan, progress = PLANS[0], Progress()
    for at, event in enumerate((Event.ACTIVATED, Event.LOADED, Event.CHECKED, Event.ADVANCE, Event.ADVANCE)):
        progress = decide(plan, progress, Happening(event, at=float(at))).progress
    assert (progress.state, progress.exposed_at) == (State.BAKING, 2.0)


def test_late_news_after_an_abort_changes_nothing() -> None:
    plan = PLANS[0]
    gone = Progress(state=State.ROLLING_BACK, outcome=State.ABORTED)
    for event in (Event.LOADED, Event.CHECKED, Event.ADVANCE, Event.HARM, Event.READY, Event.SWAPPED):
        assert decide(plan, gone, Happening(event, at=1.0)).progress == gone


def test_a_pause_while_loading_waits_and_then_goes_on_where_it_is() -> None:
    plan = PLANS[0]
    now = Progress()
    for event in (Event.ACTIVATED, Event.PAUSE, Event.LOADED, Event.CHECKED):
        now = decide(plan, now, Happening(event, at=1.0)).progress
    assert (now.state, now.lease_bp) == (State.PAUSED, 0)
    now = decide(plan, now, Happening(Event.RESUME, at=2.0)).progress
    assert (now.state, now.lease_bp) == (State.STEP, 1000)


def test_deadlines_do_not_run_in_a_freeze() -> None:
    plan = PLANS[0]
    now = Progress(state=State.STEP, step=0, weight_bp=1000, peak_bp=1000, since=100.0)
    for event, at in ((Event.FROZEN, 150.0), (Event.DEADLINE, 200.0), (Event.THAWED, 1150.0)):
        now = decide(plan, now, Happening(event, at=at)).progress
    assert now.state is State.STEP
    assert now.waited_s(1200.0) == 100.0


@pytest.mark.parametrize("weights", [(), (0, 100), (100, 100), (300, 200), (100, 10_001)])
def test_a_plan_whose_weights_do_not_rise_is_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected rising values"):
        Plan(weights)
