"""How each kind of value in a rollout spec may be written, and what a wrong one is told.

Used by `rollout.spec_file`. Every reader takes what YAML gave and raises ValueError with what it expected, in words.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator

from rollout.freeze import DAYS
from rollout.judge.settings import Metric
from rollout.ports import FULL_WEIGHT
from rollout.spec_parts import Gate, Occasion

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_HOURS = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")
_DAY_MINUTES = 24 * 60


def _number(value: object) -> float | None:
    """A real number, and not a bool or NaN dressed as one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _duration(value: object) -> float:
    number = _number(value)
    if number is None and isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        number = float(match[1]) * _UNIT_S[match[2]]
    if number is None or number < 0:
        raise ValueError('a duration such as "30s", "5m", "2h" or seconds')
    return number


def _positive_duration(value: object) -> float:
    number = _duration(value)
    if number == 0:
        raise ValueError('a duration above zero, such as "30s", "5m", "2h" or seconds')
    return number


def _percent_bp(value: object) -> int:
    """Percent (10, 2.5 or "2.5%") as basis points."""
    number = _number(value)
    if number is None and isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1])
    points = None if number is None else round(number * 100)
    if number is None or points is None or not 0 <= points <= FULL_WEIGHT or abs(points - number * 100) > 1e-6:
        raise ValueError("percent from 0 to 100, in steps of 0.01")
    return points


def _positive_percent_bp(value: object) -> int:
    points = _percent_bp(value)
    if points == 0:
        raise ValueError("percent above 0, at most 100")
    return points


def _share(value: object) -> float:
    number = _number(value)
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1]) / 100.0
    if number is None or not 0 < number < 1:
        raise ValueError('a share between 0 and 1, such as 0.01 or "1%"')
    return number


def _slower(value: object) -> float:
    if value == "none":
        return 0.0
    number = _number(value)
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1]) / 100.0
    if number is None or not 0 < number <= 10:
        raise ValueError('how much slower, such as "10%" or 0.1 (at most 10), or none')
    return number


def _ratio(value: object) -> float:
    number = _number(value)
    if number is None or not 1 < number <= 1000:
        raise ValueError("a ratio above 1, such as 1.2 (a fifth more)")
    return number


def _flag(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError("true or false")


def _steps(value: object) -> tuple[int | Gate, ...]:
    """Percentages in basis points, with the gates between them where they stand."""
    if not isinstance(value, list) or not value:
        raise ValueError("a list of percentages that rise to 100, such as [10, 30, 100]")
    steps: list[int] = []
    gates: list[Gate] = []
    for item in value:
        if isinstance(item, dict):
            gates.append(_gate(item, len(steps)))
        else:
            steps.append(_percent_bp(item))
    if not steps or steps[0] == 0:
        raise ValueError("a first step above 0")
    for before, after in pairwise(steps):
        if after <= before:
            raise ValueError(f"steps that rise ({after / 100:g} follows {before / 100:g})")
    if steps[-1] != FULL_WEIGHT:
        raise ValueError(f"100 as the last step (it ends at {steps[-1] / 100:g})")
    for first, second in pairwise(gates):
        if first.before == second.before:
            raise ValueError("a percentage between two pauses")
    return (*steps, *gates)


def _gate(item: dict[Any, Any], before: int) -> Gate:
    if list(item) != ["pause"]:
        raise ValueError("percentages, and {pause: true} or {pause: 10m} between them")
    if item["pause"] is True:
        return Gate(before)
    try:
        return Gate(before, _positive_duration(item["pause"]))
    except ValueError as error:
        raise ValueError("pause: true (until `penstock rollout resume`) or a time above zero such as 10m") from error


def one_of(*allowed: str) -> BeforeValidator:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}{nearest(value, allowed)}")
        return value

    return BeforeValidator(check)


def _metrics(value: object) -> frozenset[Metric]:
    known = [metric.value for metric in Metric]
    if not isinstance(value, list) or any(item not in known for item in value):
        raise ValueError(f"a list out of {', '.join(known)}")
    return frozenset(Metric(item) for item in value)


def _disagreement(value: object) -> float | None:
    try:
        return None if value == "none" else _share(value)
    except ValueError as error:
        raise ValueError('a share between 0 and 1, such as 0.02 or "2%", or none') from error


def _tolerance(value: object) -> float:
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise ValueError("a relative difference from 0 to 1, such as 0.01")
    return number


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**9:
        raise ValueError("a whole number of at least 1")
    return value


def _accuracy(value: object) -> float:
    number = _number(value)
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
        number = float(match[1]) / 100.0
    if number is None or not 0 <= number <= 1:
        raise ValueError('a share from 0 to 1, such as 0.9 or "90%"')
    return number


def _words(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value


def _address(value: object) -> str:
    shape = ValueError("an address such as https://hooks.example.com/services/T0/B0")
    if not isinstance(value, str):
        raise shape
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise shape from error
    if not whole or any(character <= " " for character in value):
        raise shape
    return value


def _days(value: object) -> frozenset[int]:
    if not isinstance(value, list) or not value or any(day not in DAYS for day in value):
        raise ValueError(f"a list out of {', '.join(DAYS)}")
    return frozenset(DAYS.index(day) for day in value)


def _hours(value: object) -> tuple[int, int]:
    """Minutes of the day; the end is in the next day when it is not after the start."""
    shape = ValueError('hours of the day such as "18:00-08:00" (into the next day) or "00:00-24:00"')
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise shape
    start, end = (int(match[hour]) * 60 + int(match[hour + 1]) for hour in (1, 3))
    if int(match[2]) > 59 or int(match[4]) > 59 or start >= _DAY_MINUTES or end > _DAY_MINUTES or start == end:
        raise shape
    return start, end if end > start else end + _DAY_MINUTES


def _timezone(value: object) -> str:
    shape = ValueError("a time zone such as Europe/Berlin or UTC")
    if not isinstance(value, str) or not value:
        raise shape
    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError) as error:
        raise shape from error
    return value


def _occasions(value: object) -> frozenset[Occasion]:
    known = [occasion.value for occasion in Occasion]
    if not isinstance(value, list) or not value or any(item not in known for item in value):
        raise ValueError(f"a list out of {', '.join(known)}")
    return frozenset(Occasion(item) for item in value)


def nearest(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


Duration = Annotated[float, BeforeValidator(_duration)]
PositiveDuration = Annotated[float, BeforeValidator(_positive_duration)]
Percent = Annotated[int, BeforeValidator(_percent_bp)]
PositivePercent = Annotated[int, BeforeValidator(_positive_percent_bp)]
Share = Annotated[float, BeforeValidator(_share)]
Slower = Annotated[float, BeforeValidator(_slower)]
Ratio = Annotated[float, BeforeValidator(_ratio)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Disagreement = Annotated[float | None, BeforeValidator(_disagreement)]
Tolerance = Annotated[float, BeforeValidator(_tolerance)]
Count = Annotated[int, BeforeValidator(_count)]
Accuracy = Annotated[float, BeforeValidator(_accuracy)]
Words = Annotated[str, BeforeValidator(_words)]
Address = Annotated[str, BeforeValidator(_address)]
Days = Annotated[frozenset[int], BeforeValidator(_days)]
Hours = Annotated[tuple[int, int], BeforeValidator(_hours)]
Timezone = Annotated[str, BeforeValidator(_timezone)]
Occasions = Annotated[frozenset[Occasion], BeforeValidator(_occasions)]
Metrics = Annotated[frozenset[Metric], BeforeValidator(_metrics)]
Steps = Annotated[tuple[int | Gate, ...], BeforeValidator(_steps)]
