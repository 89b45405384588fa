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

PLANS = [Plan(weights, action) for weights in ((1000, 3000, 9500), (9500,)) for action in DeadlineAction]
GRANTS = {Event.CHECKED, Event.ADVANCE, Event.PROMOTE, Event.SWAPPED, Event.RESUME}
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


all_plans = pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{len(p.weights_bp)} steps, {p.on_deadline}")


@all_plans
def test_every_state_is_reached(plan: Plan) -> None:
    expected = set(State) - ({State.STEP} if len(plan.weights_bp) == 1 else set())
    assert {now.state for now, _, _ in edges(plan)} == expected


@all_plans
def test_weight_rises_only_by_evidence_or_an_operators_word(plan: Plan) -> None:
    for now, event, new in edges(plan):
        if new.weight_bp > now.weight_bp:
            assert event in GRANTS, (now, event, new)
            assert event is not Event.RESUME or now.step < 0, "resuming raised a weight that was judged already"


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
    for state in {now for now, _, _ in edges(plan)}:
        if state.settled:
            continue
        exits = {new.state for now, _, new in edges(plan) if now == state} - {state.state}
        assert exits or state.undoable, state


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


@pytest.mark.parametrize("weights", [(), (0, 100), (100, 100), (300, 200), (100, 10_001)])
def test_a_plan_whose_weights_do_not_rise_is_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected rising values"):
        Plan(weights)
