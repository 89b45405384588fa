"""Stable's last day in two halves: counted from the access log, kept over restarts, calibrated on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.database import open_database
from rollout.calibration import LEAST_S, Calibrated, calibrate
from rollout.evidence.halves import LIMITS_US, STRETCH_S, WINDOWS, Counting, Stretch
from rollout.evidence.history import MOST_VERSIONS, StableHistory
from rollout.evidence.history_store import KEPT_S, HistoryStore
from rollout.evidence.logged import LoggedRequest
from rollout.judge.dispersion import Calibration
from rollout.judge.settings import JudgeSettings
from rollout.ports import Outcome
from tests.clocks import ManualClock
from tests.evidence.logs import history_of, logged, memory

START = 1_700_000_100.0
"""The beginning of a stretch."""


def feed(history: StableHistory, clock: ManualClock, *requests: LoggedRequest, every_s: float = 10.0) -> None:
    for request in requests:
        history.add(request, 1, int(request.outcome is Outcome.BAD), clock.seconds)
        clock.seconds += every_s


class TestStretches:
    def test_a_request_counts_in_its_window_and_its_callers_half(self) -> None:
        counting = Counting(START)
        counting.add(logged(3, latency_us=float(LIMITS_US[7])), 1, 0, START + 12.0)
        counting.add(logged(2, Outcome.BAD), 1, 1, START + 299.9)
        counting.add(logged(2, Outcome.CALLER), 0, 0, START)
        stretch = counting.stretch()
        assert np.argwhere(stretch.counts).tolist() == [
            [1, 1, 1],
            [1, 1, 3],
            [WINDOWS - 1, 0, 0],
            [WINDOWS - 1, 0, 1],
            [WINDOWS - 1, 0, 2],
            [WINDOWS - 1, 0, 3],
        ]
        assert np.argwhere(stretch.latency).tolist() == [[1, 8]], "limits are exclusive, as Envoy's are"

    @given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(0.0, 1e9), st.booleans()), max_size=30))
    def test_what_is_kept_is_what_was_counted(self, requests: list[tuple[int, float, bool]]) -> None:
        counting = Counting(START)
        for caller, latency_us, failed in requests:
            outcome = Outcome.BAD if failed else Outcome.OK
            counting.add(logged(caller, outcome, latency_us=latency_us), 1, int(failed), START + latency_us % STRETCH_S)
        stretch = counting.stretch()
        store = HistoryStore(memory())
        store.add([("digits", stretch)], START)
        (kept,) = store.read("digits", START)
        assert kept.at == START
        assert np.array_equal(kept.counts, stretch.counts)
        assert np.array_equal(kept.latency, stretch.latency)
        assert stretch.counts[:, :, 1].sum() == len(requests)


class TestStableHistory:
    async def test_a_restart_keeps_it(self, tmp_path: Path) -> None:
        clock, connection = ManualClock(START), open_database(tmp_path / "history.db")
        history = history_of(clock, connection)
        feed(history, clock, *[logged(1)] * 100)
        before = history.of("digits")
        await history.close()
        connection.close()
        again = history_of(clock, open_database(tmp_path / "history.db"))
        assert again.of("digits") == before
        assert (before.seconds, before.requests) == (1000.0, 100)
        assert history.written == 4

    async def test_a_kill_loses_the_five_minutes_that_were_counted(self, tmp_path: Path) -> None:
        clock, connection = ManualClock(START), open_database(tmp_path / "history.db")
        history = history_of(clock, connection)
        feed(history, clock, *[logged(1)] * 31)
        while not history.written:
            await asyncio.sleep(0)
        assert history.of("digits").requests == 31
        assert history_of(clock, open_database(tmp_path / "history.db")).of("digits").requests == 30

    async def test_only_the_last_day_counts(self) -> None:
        clock, connection = ManualClock(START), memory()
        history = history_of(clock, connection)
        feed(history, clock, *[logged(1)] * 30)
        clock.seconds += KEPT_S
        feed(history, clock, *[logged(1)] * 30)
        await history.close()
        assert history.of("digits").requests == 30
        assert connection.execute("SELECT count(*) FROM stretches").fetchone() == (1,)

    async def test_only_stable_versions_are_kept_each_in_its_line(self) -> None:
        clock = ManualClock(START)
        stable = {("digits", 1): "digits", ("digits", 7): "digits@2"}
        history = StableHistory(store=HistoryStore(memory()), stable=lambda: stable, clock=clock)
        feed(history, clock, *[logged(1)] * 3, *[logged(1, version=2)] * 5, *[logged(1, version=7)] * 4)
        assert (history.of("digits").requests, history.of("digits@2").requests) == (3, 4)
        await history.close()
        assert (history.of("digits").requests, history.of("digits@2").requests) == (3, 4)
        assert history.of("iris") == Calibrated()

    async def test_a_promoted_version_goes_on_with_the_lines_history(self) -> None:
        clock, stable = ManualClock(START), {("digits", 1): "digits"}
        history = StableHistory(store=HistoryStore(memory()), stable=lambda: stable, clock=clock)
        feed(history, clock, *[logged(1)] * 31)
        stable.clear()
        stable["digits", 2] = "digits"
        feed(history, clock, *[logged(1, version=2)] * 5)
        assert history.of("digits").requests == 30 + 5, "less the one of version 1 in the stretch under way"

    async def test_memory_is_bounded(self) -> None:
        clock = ManualClock(START)
        history = history_of(clock)
        for version in range(MOST_VERSIONS + 3):
            history.add(logged(1, version=version), 1, 0, clock.seconds)
        assert history.uncounted == 3

    async def test_a_disk_that_fails_costs_history_and_nothing_else(self, caplog: pytest.LogCaptureFixture) -> None:
        clock, connection = ManualClock(START), memory()
        history = history_of(clock, connection)
        feed(history, clock, logged(1))
        connection.execute("DROP TABLE stretches")
        await history.close()
        assert (history.written, history.dropped) == (0, 1)
        assert "were not kept" in caplog.text
        found = history.of("digits")
        assert "cannot be read" in found.trouble
        assert found.applied(JudgeSettings()) == JudgeSettings()

    def test_what_another_version_of_penstock_wrote_is_left_out(self) -> None:
        connection = memory()
        store = HistoryStore(connection)
        store.add([("digits", Counting(START).stretch())], START)
        for body in (b"", b"garbage", sqlite3.Binary(b"x\x9c\x03\x00\x00\x00\x00\x01")):
            connection.execute("INSERT INTO stretches VALUES ('digits', ?, 1, ?)", (START, body))
        connection.execute("INSERT INTO stretches VALUES ('digits', ?, 2, ?)", (START, b"of another format"))
        assert len(store.read("digits", START)) == 1


def stretches(
    count: int, requests: Callable[[np.random.Generator, int, int], Sequence[LoggedRequest]]
) -> list[Stretch]:
    """`requests` gives those of each window of ten seconds."""
    rng, made = np.random.default_rng(1), []
    for number in range(count):
        began = START + number * STRETCH_S
        counting = Counting(began)
        for window in range(WINDOWS):
            for request in requests(rng, number, window):
                failed = int(request.outcome is Outcome.BAD)
                counting.add(request, 1, failed, began + 10.0 * window)
        made.append(counting.stretch())
    return made


def alike(rng: np.random.Generator, number: int, window: int) -> list[LoggedRequest]:
    return [
        logged(int(caller), latency_us=4000.0 * float(np.exp(0.1 * rng.standard_normal())))
        for caller in rng.integers(0, 1000, 20)
    ]


class TestCalibration:
    def test_alike_halves_leave_the_judge_as_sharp_as_it_was(self) -> None:
        found = calibrate(stretches(8, alike))
        assert found.enough
        assert (found.seconds, found.requests) == (2400.0, 8 * 30 * 20)
        assert found.latency_tolerance == pytest.approx(0.05)
        settings = found.applied(JudgeSettings())
        assert (settings.latency_tolerance, settings.calibration) == (found.latency_tolerance, found.errors)

    def test_halves_that_differ_widen_the_tolerance_of_latency(self) -> None:
        def noisy(rng: np.random.Generator, number: int, window: int) -> list[LoggedRequest]:
            slower = {half: float(np.exp(0.05 * np.sin(number * (1 + half)))) for half in (0, 1)}
            return [
                logged(int(caller), latency_us=slower[caller % 2] * 4000.0 * float(np.exp(0.2 * rng.standard_normal())))
                for caller in rng.integers(0, 1000, 40)
            ]

        found = calibrate(stretches(8, noisy))
        assert 0.1 < found.latency_tolerance < 0.3
        assert found.applied(JudgeSettings()).latency_tolerance == found.latency_tolerance
        assert found.applied(JudgeSettings(latency_tolerance=0.5)).latency_tolerance == 0.5, "the owner's own is larger"

    def test_a_broken_client_is_noise_by_request_and_none_by_caller(self) -> None:
        def with_a_broken_client(rng: np.random.Generator, number: int, window: int) -> list[LoggedRequest]:
            bursts = [logged(7, Outcome.BAD)] * (15 if window % 7 == 0 else 0)
            return [*alike(rng, number, window), *bursts]

        made = stretches(8, with_a_broken_client)
        for stretch in made:
            stretch.counts[:, :, 2] = 0
        found = calibrate(made)
        assert found.errors.scale > 3
        assert found.callers.scale == pytest.approx(1.15)
        settings = found.applied(JudgeSettings())
        assert (settings.calibration, settings.caller_calibration) == (found.errors, found.callers)

    def test_too_little_history_changes_nothing_and_says_so(self) -> None:
        found = calibrate(stretches(5, alike))
        assert found.seconds < LEAST_S
        assert found.applied(JudgeSettings()) == JudgeSettings()
        assert (
            found.words() == "not calibrated: 25 min of stable's traffic (3,000 requests) in the history, 30 min needed"
        )

    @given(
        st.floats(1.0, 10.0), st.floats(0.0, 5.0), st.floats(0.0, 1.0), st.floats(0.0, 86_400.0), st.integers(0, 10**12)
    )
    def test_the_journal_gives_it_back_bit_for_bit(
        self, scale: float, slope: float, tolerance: float, seconds: float, requests: int
    ) -> None:
        found = Calibrated(seconds, requests, Calibration(scale, slope), Calibration(scale), tolerance)
        assert Calibrated.from_json(json.loads(json.dumps(found.to_json()))) == found
