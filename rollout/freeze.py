"""Times at which a rollout must not move forward: nights, week-ends, sale days, as its owner wrote them.

Part of `rollout.spec`; asked by `rollout.loop` with the clock's time. What a freeze forbids is for `rollout.machine`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """Every week, on each of `days` (0 = Monday) from minute `start` to minute `end` of the day, local time.

    `end` above 1,440 reaches into the next day. `timezone` is an IANA name such as Europe/Berlin; the wall clock there
    counts, so a window is an hour shorter or longer on the nights on which the clock is changed.
    """

    days: frozenset[int]
    start: int = 0
    end: int = _DAY_MINUTES
    timezone: str = "UTC"

    def until(self, at: float) -> float | None:
        """When the window that covers `at` (epoch seconds) ends, in epoch seconds; None outside."""
        zone = ZoneInfo(self.timezone)
        today = datetime.fromtimestamp(at, zone).date()
        for date in (today - timedelta(days=1), today):
            if date.weekday() not in self.days:
                continue
            midnight = datetime.combine(date, time())
            begins, ends = (
                (midnight + timedelta(minutes=minutes)).replace(tzinfo=zone).timestamp()
                for minutes in (self.start, self.end)
            )
            if begins <= at < ends:
                return ends
        return None

    def to_json(self) -> dict[str, Any]:
        return {"days": sorted(self.days), "start": self.start, "end": self.end, "timezone": self.timezone}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FreezeWindow:
        return cls(**{**value, "days": frozenset(value["days"])})


def frozen_until(windows: Iterable[FreezeWindow], at: float) -> float | None:
    """When the freeze in force at `at` ends (epoch seconds), across windows that join; None when there is none."""
    windows, ends = tuple(windows), None
    # A week has so many windows that follow on one another; all week frozen would never end.
    for _ in range(len(DAYS) * len(windows) + 1):
        later = max((end for window in windows if (end := window.until(at)) is not None), default=None)
        if later is None:
            break
        ends = at = later
    return ends
