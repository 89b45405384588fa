"""The present traffic of a version, from the access log and the feedback: what a forecast before a rollout rests on."""

from __future__ import annotations

import sqlite3

import pytest

from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_request import Entry, Feedback, Kind
from rollout.evidence.feedback_store import FeedbackStore, Prediction
from rollout.evidence.logged import LoggedRequest
from rollout.evidence.recent import RecentTraffic
from rollout.ports import Outcome
from tests.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def desk(clock: ManualClock) -> FeedbackDesk:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    return FeedbackDesk(FeedbackStore(connection=connection, clock=clock))


@pytest.fixture
def recent(desk: FeedbackDesk, clock: ManualClock) -> RecentTraffic:
    return RecentTraffic(desk=desk, clock=clock)


def logged(
    count: int, outcome: Outcome = Outcome.OK, *, model: str = "digits", version: int = 1
) -> list[LoggedRequest]:
    return [LoggedRequest(model, version, outcome, None, 0, sticky=False)] * count


async def test_the_rate_is_that_of_the_last_minutes(recent: RecentTraffic, clock: ManualClock) -> None:
    recent.record(logged(90_000))
    for _ in range(300):
        clock.seconds += 1.0
        recent.record(logged(9) + logged(1, Outcome.BAD) + logged(5, version=2) + logged(7, model="other"))
    seen = await recent.of("digits", 1)
    assert seen.rps == pytest.approx(10.0, rel=0.05)
    assert seen.errors / seen.requests == pytest.approx(0.1)
    assert 30.0 <= seen.seconds <= 60.0
    assert seen.words() == f"{seen.rps:.3g} requests a second in the last {seen.seconds:.0f} s"


async def test_where_requests_are_few_it_looks_further_back(recent: RecentTraffic, clock: ManualClock) -> None:
    for _ in range(300):
        clock.seconds += 1.0
        recent.record(logged(1) if int(clock.seconds) % 10 == 0 else [])
    seen = await recent.of("digits", 1)
    assert seen.rps == pytest.approx(0.1, rel=0.1)
    assert 280.0 <= seen.seconds <= 300.0


async def test_a_callers_own_mistake_is_no_traffic_of_the_version(recent: RecentTraffic, clock: ManualClock) -> None:
    recent.record(logged(100, Outcome.CALLER))
    clock.seconds += 60.0
    assert (await recent.of("digits", 1)).words() == "no traffic was seen in the last 60 s"


async def test_what_is_long_ago_is_forgotten(recent: RecentTraffic, clock: ManualClock) -> None:
    recent.record(logged(1000))
    clock.seconds += 3600.0
    assert (await recent.of("digits", 1)).requests == 0


async def test_a_control_plane_that_has_just_started_says_so(recent: RecentTraffic, clock: ManualClock) -> None:
    recent.record(logged(1000))
    clock.seconds += 3.0
    seen = await recent.of("digits", 1)
    assert seen.words() == "the present traffic is not known: the control plane has looked for 3 s only"


async def test_feedback_of_the_same_minutes_counts(
    recent: RecentTraffic, desk: FeedbackDesk, clock: ManualClock
) -> None:
    clock.seconds += 60.0
    recent.record(logged(10))
    desk.log([Prediction(f"r{i}", "digits", 1, (1,), clock.now()) for i in range(10)])
    for i in range(4):
        await desk.take(Feedback(f"r{i}", (Entry(0, False, Kind.LABEL, 1 if i else 2),)))
    seen = await recent.of("digits", 1)
    assert (seen.labelled, seen.wrong) == (4, 1)
    assert seen.flow.labels == pytest.approx(0.4)
