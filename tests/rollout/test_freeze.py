"""Freeze windows on the calendar: days, hours, midnight, time zones, the nights on which clocks are changed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.freeze import FreezeWindow, frozen_until

BERLIN = "Europe/Berlin"
NIGHTS = FreezeWindow(frozenset({4}), 18 * 60, 32 * 60, BERLIN)
"""Friday 18:00 to Saturday 08:00."""


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("moment", "ends"),
    [
        ("2026-11-20 17:59:59", None),
        ("2026-11-20 18:00:00", "2026-11-21 08:00"),
        ("2026-11-21 07:59:59", "2026-11-21 08:00"),
        ("2026-11-21 08:00:00", None),
        ("2026-11-19 20:00:00", None),
    ],
)
def test_a_window_covers_its_hours_across_midnight(moment: str, ends: str | None) -> None:
    assert NIGHTS.until(at(moment)) == (None if ends is None else at(ends))


def test_the_clock_of_the_time_zone_counts() -> None:
    assert NIGHTS.until(at("2026-11-20 17:30", "UTC")) is not None
    assert FreezeWindow(NIGHTS.days, NIGHTS.start, NIGHTS.end, "UTC").until(at("2026-11-20 17:30", "UTC")) is None


def test_a_night_on_which_the_clock_is_changed_ends_by_the_wall_clock() -> None:
    saturday_night = FreezeWindow(frozenset({5}), 22 * 60, 30 * 60, BERLIN)
    begins, ends = at("2026-10-24 22:00"), at("2026-10-25 06:00")
    assert ends - begins == 9 * 3600
    assert saturday_night.until(ends - 1) == ends
    assert saturday_night.until(ends) is None


def test_windows_that_follow_on_one_another_are_one_freeze() -> None:
    weekend = FreezeWindow(frozenset({4, 5, 6}), timezone=BERLIN)
    assert frozen_until([weekend], at("2026-11-20 09:00")) == at("2026-11-23 00:00")
    assert frozen_until([weekend, NIGHTS], at("2026-11-18 09:00")) is None


@given(st.frozensets(st.integers(0, 6)), st.integers(0, 1439), st.integers(1, 1440), st.integers(0, 10**9))
def test_a_freeze_ends_after_what_it_covers(days: frozenset[int], start: int, length: int, when: int) -> None:
    window = FreezeWindow(days, start, start + length)
    assert FreezeWindow.from_json(window.to_json()) == window
    until = frozen_until([window], float(when))
    if until is not None:
        assert until > when
        assert window.until(float(when)) is not None
