"""Objectives: what a load test must show to end with exit status 0, and by which figure it did or did not.

Pure: durations and shares are parsed from what a person writes (`50ms`, `0.1%`), and figures are judged against them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(us|µs|ms|s|min|m|h)")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%?)")
_UNITS_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class BadObjective(ValueError):
    """What was written is no duration or share; the message says what is expected."""


def parse_duration_s(text: str) -> float:
    """Seconds of `250us`, `50ms`, `1.5s`, `10m`, `2h`. Raises BadObjective."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise BadObjective(f"expected a duration such as 50ms, 1.5s or 10m, received {text!r}")
    return float(match[1]) * _UNITS_S[match[2]]


def parse_share(text: str) -> float:
    """A share (0..1) of `0.1%` or `0.001`. Raises BadObjective."""
    match = _SHARE.fullmatch(text.strip())
    share = None if match is None else float(match[1]) / (100.0 if match[2] else 1.0)
    if share is None or share > 1.0:
        raise BadObjective(f"expected a share such as 0.1% or 0.001, at most 100%, received {text!r}")
    return share


@dataclass(frozen=True, slots=True)
class Objectives:
    """Upper limits. `latency_ms` is by percentile (99.0 -> milliseconds), `errors` a share of all requests (0..1).

    `lost` is the number of requests that may fail without a candidate version being to blame; None asks for nothing.
    """

    latency_ms: Mapping[float, float]
    errors: float | None = None
    lost: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One objective and the figure that decides it."""

    name: str
    met: bool
    figure: str
    limit: str

    def __str__(self) -> str:
        if self.met:
            return f"{self.name} {self.figure} (limit {self.limit})"
        return f"{self.name} {self.figure} exceeds {self.limit}"


def judge(
    objectives: Objectives, *, latency_ms: Mapping[float, float | None], requests: int, failed: int, lost: int
) -> tuple[Finding, ...]:
    """Every objective with its figure. A latency without any successful request, or a run without one, meets nothing.

    `latency_ms` gives the figure for each percentile that is asked for.
    """
    findings = []
    for percentile, limit in sorted(objectives.latency_ms.items()):
        figure = latency_ms.get(percentile)
        met = figure is not None and figure <= limit
        findings.append(Finding(f"p{percentile:g}", met, _milliseconds(figure), _milliseconds(limit)))
    if objectives.errors is not None:
        share = failed / requests if requests else 1.0
        words = f"{share:.3%}" if requests else "of no request at all"
        findings.append(Finding("errors", share <= objectives.errors, words, f"{objectives.errors:.3%}"))
    if objectives.lost is not None:
        met = requests > 0 and lost <= objectives.lost
        findings.append(Finding("lost requests", met, f"{lost:,} of {requests:,}", f"{objectives.lost:,}"))
    return tuple(findings)


def _milliseconds(value: float | None) -> str:
    return "without an answer" if value is None else f"{value:,.3g} ms" if value < 1000 else f"{value:,.0f} ms"
