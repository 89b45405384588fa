"""Arrivals follow the rate: as many as the area below it, in order, at the instants where that area is reached."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.scenarios import SPIKE_FACTOR, Scenario
from loadtest.schedule import Schedule, Stage, constant

RATES = st.floats(min_value=0.0, max_value=200.0)
STAGES = st.lists(
    st.builds(Stage, seconds=st.floats(min_value=0.1, max_value=20.0), start=RATES, end=RATES), min_size=1, max_size=4
)


def area(schedule: Schedule, until: float) -> float:
    """The arrivals due before an instant, stage by stage, by the trapezium rule (exact for linear rates)."""
    whole, begin = 0.0, 0.0
    for stage in schedule.stages:
        spent = min(stage.seconds, max(0.0, until - begin))
        reached = stage.start + (stage.end - stage.start) * spent / stage.seconds
        whole += spent * (stage.start + reached) / 2
        begin += stage.seconds
    return whole


@given(STAGES)
def test_arrivals_are_as_many_as_the_rate_asks_for_and_in_order(stages: list[Stage]) -> None:
    schedule = Schedule(tuple(stages))
    instants = list(schedule.share(0, 1))
    assert len(instants) == schedule.arrivals
    assert abs(schedule.arrivals - sum(stage.arrivals for stage in stages)) <= 1.0 + 1e-6
    assert all(before <= after + 1e-9 for before, after in pairwise(instants))
    assert all(0.0 <= instant <= schedule.seconds + 1e-9 for instant in instants)


@given(STAGES, st.integers(min_value=0, max_value=2000))
def test_an_arrival_is_due_when_the_area_below_the_rate_reaches_its_number(stages: list[Stage], n: int) -> None:
    schedule = Schedule(tuple(stages))
    due = schedule.due(n)
    if due is None:
        assert n >= schedule.arrivals
    else:
        assert math.isclose(area(schedule, due), n, rel_tol=1e-6, abs_tol=1e-3)


@given(STAGES, st.integers(min_value=1, max_value=5))
def test_workers_share_every_arrival_and_none_twice(stages: list[Stage], workers: int) -> None:
    schedule = Schedule(tuple(stages))
    shared = sorted(instant for worker in range(workers) for instant in schedule.share(worker, workers))
    assert shared == sorted(schedule.share(0, 1))


def test_a_constant_rate_is_evenly_spaced() -> None:
    assert list(constant(4.0, 2.0).share(0, 1)) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75])


def test_a_rate_that_starts_at_nothing_begins_slowly() -> None:
    instants = list(Schedule((Stage(2.0, 0.0, 10.0),)).share(0, 1))
    assert len(instants) == 10
    assert instants[1] - instants[0] > instants[9] - instants[8]


@pytest.mark.parametrize("stages", [(), (Stage(0.0, 1.0, 1.0),), (Stage(1.0, -1.0, 1.0),)])
def test_a_schedule_must_last_and_have_rates(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(ValueError, match="expected stages that last"):
        Schedule(stages)


@pytest.mark.parametrize("scenario", list(Scenario))
def test_every_scenario_lasts_as_long_as_it_was_told(scenario: Scenario) -> None:
    schedule = scenario.schedule(100.0, 40.0)
    assert schedule.seconds == pytest.approx(40.0)
    assert schedule.peak == pytest.approx(100.0 * SPIKE_FACTOR if scenario is Scenario.SPIKE else 100.0)


def test_a_ramp_rises_in_steps_to_its_rate_and_a_spike_comes_back() -> None:
    ramp = Scenario.RAMP.schedule(1000.0, 10.0)
    assert [ramp.rate_at(second + 0.5) for second in range(10)] == pytest.approx([100.0 * i for i in range(1, 11)])
    spike = Scenario.SPIKE.schedule(100.0, 100.0)
    assert [spike.rate_at(second) for second in (10, 50, 90)] == pytest.approx([100.0, 500.0, 100.0])
