"""Sticky traffic is counted by caller, from the access log, and only where the log can be believed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from rollout.evidence.callers import LEAST_CALLERS, MANY_CALLERS, CallerLog, CountedCallers
from rollout.evidence.failing import FORGIVEN_S, RECOVERED, FailingCallers
from rollout.evidence.logged import LoggedRequest
from rollout.ports import ArmCounts, Outcome, Tick
from tests.clocks import ManualClock
from tests.evidence.logs import history_of, logged


def counted(failing: FailingCallers, *requests: LoggedRequest, at: float = 0.0) -> tuple[int, int]:
    pairs = [failing.observe(request, at) for request in requests]
    return sum(callers for callers, _ in pairs), sum(failed for _, failed in pairs)


class TestFailingCallers:
    def test_a_caller_counts_once_a_period(self) -> None:
        failing = FailingCallers()
        assert counted(failing, logged(7), logged(7), logged(8)) == (2, 0)
        failing.begin_period()
        assert counted(failing, logged(7)) == (1, 0)

    def test_a_broken_client_is_one_failure_for_ever(self) -> None:
        failing = FailingCallers()
        found = [counted(failing, logged(7, Outcome.BAD), at=float(second)) for second in range(10_000)]
        assert found[0] == (1, 1)
        assert set(found[1:]) == {(0, 0)}

    def test_it_stays_one_failure_on_another_version(self) -> None:
        failing = FailingCallers()
        assert counted(failing, logged(7, Outcome.BAD, version=1)) == (1, 1)
        assert counted(failing, logged(7, Outcome.BAD, version=2)) == (0, 0)

    def test_a_caller_who_has_recovered_counts_again(self) -> None:
        failing = FailingCallers()
        counted(failing, logged(7, Outcome.BAD))
        assert counted(failing, *[logged(7)] * (RECOVERED - 1)) == (0, 0)
        assert counted(failing, logged(7), logged(7, Outcome.BAD)) == (1, 1)
        assert len(failing) == 1

    def test_a_slow_caller_recovers_with_time_and_a_good_answer(self) -> None:
        failing = FailingCallers()
        counted(failing, logged(7, Outcome.BAD), at=0.0)
        assert counted(failing, logged(7), at=FORGIVEN_S - 1) == (0, 0)
        assert counted(failing, logged(7), at=FORGIVEN_S) == (1, 0)

    def test_failing_again_begins_the_recovery_anew(self) -> None:
        failing = FailingCallers()
        for _ in range(10):
            counted(failing, logged(7, Outcome.BAD), *[logged(7)] * (RECOVERED - 1))
        assert counted(failing, logged(7, Outcome.BAD)) == (0, 0)

    def test_an_anonymous_request_is_its_own_caller(self) -> None:
        failing = FailingCallers()
        requests = [logged(number, Outcome.BAD, sticky=False) for number in (1, 1, 2)]
        assert counted(failing, *requests) == (3, 3)
        assert len(failing) == 0, "it will not come again"

    def test_the_callers_own_mistakes_count_for_nobody(self) -> None:
        assert counted(FailingCallers(), logged(7, Outcome.CALLER), logged(8, Outcome.CALLER, sticky=False)) == (0, 0)

    def test_at_the_limit_the_one_who_failed_longest_ago_is_forgotten(self) -> None:
        failing = FailingCallers(limit=2)
        counted(failing, *(logged(caller, Outcome.BAD) for caller in (1, 2, 1, 3)))
        assert (len(failing), failing.forgotten) == (2, 1)
        assert counted(failing, logged(1, Outcome.BAD)) == (0, 0)
        assert counted(failing, logged(2, Outcome.BAD)) == (1, 1)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.integers(1, 2),
                st.sampled_from([Outcome.BAD, *[Outcome.OK] * 20, Outcome.CALLER]),
                st.booleans(),
                st.integers(0, 20).map(lambda chance: chance == 0),
            ),
            max_size=400,
        )
    )
    def test_no_version_has_more_failing_callers_than_callers(
        self, requests: list[tuple[int, int, Outcome, bool, bool]]
    ) -> None:
        failing = FailingCallers(limit=3)
        sums: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        for caller, version, outcome, sticky, new_period in requests:
            if new_period:
                assert all(failed <= callers for callers, failed in sums.values())
                sums.clear()
                failing.begin_period()
            callers, failed = failing.observe(logged(caller, outcome, version=version, sticky=sticky), 0.0)
            sums[version][0] += callers
            sums[version][1] += failed
        assert all(failed <= callers for callers, failed in sums.values())
        assert len(failing) <= 3


class Counters:
    """What Envoy counted, second by second; the log says the same unless told otherwise."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = CallerLog(clock=self.clock, history=history_of(self.clock))
        self.evidence = CountedCallers(self, self.log)
        self.requests: list[LoggedRequest] = []
        self.missing = ""
        self.seconds = 1.0

    async def read(self, models: Iterable[str]) -> dict[str, Tick]:
        outcomes: defaultdict[int, defaultdict[Outcome, int]] = defaultdict(lambda: defaultdict(int))
        for request in self.requests:
            outcomes[request.version][request.outcome] += 1
        if not self.missing:
            self.requests = []
        arms = {version: ArmCounts(ok=n[Outcome.OK], bad=n[Outcome.BAD]) for version, n in outcomes.items()}
        tick = Tick(at=self.clock.now(), seconds=self.seconds, arms={} if self.missing else arms, missing=self.missing)
        return dict.fromkeys(models, tick)

    async def second(self, *requests: LoggedRequest, logged: bool = True) -> Tick:
        self.clock.seconds += 1.0
        self.requests.extend(requests)
        if logged:
            self.log.record(requests)
        return (await self.evidence.read(["digits"]))["digits"]


def everybody(count: int = MANY_CALLERS, *, version: int = 1) -> list[LoggedRequest]:
    return [logged(caller, version=version) for caller in range(count)]


class TestCountedCallers:
    async def test_a_tick_has_the_callers_of_its_second(self) -> None:
        counters = Counters()
        await counters.second()
        tick = await counters.second(*everybody(), *everybody(), logged(999, Outcome.BAD))
        assert (tick.arms[1].requests, tick.arms[1].callers, tick.arms[1].bad_callers) == (201, 101, 1)
        tick = await counters.second(*everybody(), logged(999, Outcome.BAD))
        assert (tick.arms[1].callers, tick.arms[1].bad_callers) == (100, 0)
        assert tick.by_caller

    async def test_a_client_that_was_broken_before_is_no_news_on_the_candidate(self) -> None:
        counters = Counters()
        counters.log.record([*everybody(), logged(999, Outcome.BAD)])
        tick = await counters.second(*everybody(), logged(999, Outcome.BAD, version=2))
        assert tick.by_caller, "from the candidate's first request on"
        assert (tick.arms[2].bad, tick.arms[2].callers) == (1, 0)

    async def test_traffic_that_is_not_sticky_is_judged_by_request(self) -> None:
        counters = Counters()
        await counters.second()
        anonymous = [logged(number, sticky=False) for number in range(500)]
        tick = await counters.second(*anonymous, *everybody(MANY_CALLERS - 1))
        assert tick.arms[1] == ArmCounts(ok=500 + MANY_CALLERS - 1)
        assert not tick.by_caller

    async def test_with_few_callers_both_versions_must_have_met_some(self) -> None:
        counters = Counters()
        await counters.second()
        few = everybody(LEAST_CALLERS)
        assert not (await counters.second(*few, *everybody(LEAST_CALLERS - 1, version=2))).by_caller
        tick = await counters.second(*few, logged(LEAST_CALLERS, version=2))
        assert tick.by_caller
        assert (tick.arms[1].callers, tick.arms[2].callers) == (LEAST_CALLERS, 1)

    async def test_callers_of_ten_minutes_ago_are_not_recent(self) -> None:
        counters = Counters()
        counters.log.record(everybody())
        counters.clock.seconds += 610.0
        assert not (await counters.second(*everybody(1))).by_caller

    async def test_a_log_that_stops_is_missing_data_until_it_is_back(self) -> None:
        counters = Counters()
        for _ in range(12):
            assert not (await counters.second(*everybody())).callers_missing
        ticks = [await counters.second(*everybody(), logged=False) for _ in range(12)]
        why = ticks[-1].callers_missing
        assert why == "the access log tells of 0 of the 1,000 requests of the last 10 s"
        assert not ticks[1].callers_missing, "a moment behind is no matter"
        assert {tick.arms[1].callers for tick in ticks} == {0}
        assert counters.log.uncounted == sum(bool(tick.callers_missing) for tick in ticks)
        assert not any(tick.by_caller and tick.callers_missing for tick in ticks)
        ticks = [await counters.second(*everybody()) for _ in range(8)]
        assert not ticks[-1].callers_missing
        assert ticks[-1].arms[1].callers == 100

    async def test_a_log_that_lags_by_half_a_second_is_whole(self) -> None:
        counters, late = Counters(), list[LoggedRequest]()
        for _ in range(30):
            requests = everybody()
            counters.log.record(late)
            counters.log.record(requests[:50])
            late = requests[50:]
            assert not (await counters.second(*requests, logged=False)).callers_missing

    async def test_a_model_that_never_had_sticky_callers_misses_none(self) -> None:
        counters = Counters()
        anonymous = [logged(number, sticky=False) for number in range(40)]
        ticks = [await counters.second(*anonymous, logged=False) for _ in range(12)]
        assert not any(tick.callers_missing for tick in ticks)

    async def test_callers_of_a_tick_without_counters_are_in_the_next(self) -> None:
        counters = Counters()
        await counters.second(*everybody())
        counters.missing = "Envoy did not answer"
        assert (await counters.second(*everybody())).missing
        counters.missing = ""
        tick = await counters.second(*everybody(), logged(999, Outcome.BAD))
        assert (tick.arms[1].requests, tick.arms[1].callers, tick.arms[1].bad_callers) == (201, 201, 1)

    async def test_counting_begins_anew_with_a_models_next_rollout(self) -> None:
        counters = Counters()
        await counters.second(*everybody())
        await counters.evidence.read(["iris"])
        counters.log.record(everybody())
        tick = await counters.second()
        assert not tick.arms

    async def test_and_after_a_while_without_any(self) -> None:
        counters = Counters()
        few = [*everybody(LEAST_CALLERS), *everybody(LEAST_CALLERS, version=2)]
        assert (await counters.second(*few)).arms
        assert (await counters.second(*few)).by_caller
        counters.seconds = 3600.0
        assert not (await counters.second(*few)).by_caller
        counters.seconds = 1.0
        assert not (await counters.second(*everybody(LEAST_CALLERS))).by_caller

    async def test_callers_never_outnumber_requests(self) -> None:
        counters, rng = Counters(), random.Random(1)
        for _ in range(50):
            drawn = [
                logged(rng.randrange(30), rng.choice([Outcome.OK, Outcome.OK, Outcome.BAD]), version=rng.randint(1, 2))
                for _ in range(40)
            ]
            tick = await counters.second(*drawn)
            for arm in tick.arms.values():
                assert arm.bad_callers <= arm.callers <= arm.requests
