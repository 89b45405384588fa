"""The hard guardrail: gross failure of the canary, seen within seconds at any traffic.

A scan over the last 40 and 120 seconds of the current step, stratified by tick: a canary's expected errors are what
stable's share says *in the same second*, so that a common outage explains itself. It stands outside the alpha budget;
its false alarms are measured by simulation (a common outage across a weight change: none, where pooled windows gave
2.8 %).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

LONG_S, SHORT_S = 120.0, 40.0
_MIN_STABLE = {SHORT_S: 20, LONG_S: 5}
_PRIOR_REQUESTS = 10.0
_LEAST_RATE = 0.02
_MIN_LOG_LIKELIHOOD = 9.0
_MIN_SHARE = 0.25
_MIN_EXCESS = 3.0
_SILENT_REQUESTS = 10

Row = tuple[float, int, int, int, int]
"""Time of the tick, canary's bad and all requests, stable's bad and all."""


class Scan:
    """The recent ticks of the current step."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque()
        self._canary_ok, self._canary_bad, self._stable_ok = 0, 0, 0

    def start_step(self) -> None:
        self._rows.clear()
        self._canary_ok, self._canary_bad, self._stable_ok = 0, 0, 0

    def observe(self, at: float, bad_canary: int, n_canary: int, bad_stable: int, n_stable: int) -> None:
        while self._rows and self._rows[0][0] <= at - LONG_S:
            self._rows.popleft()
        if n_canary or n_stable:
            self._rows.append((at, bad_canary, n_canary, bad_stable, n_stable))
        self._canary_ok += n_canary - bad_canary
        self._canary_bad += bad_canary
        self._stable_ok += n_stable - bad_stable

    def shares(self, at: float) -> tuple[int, int, int, int]:
        """Sums over the short window: canary's bad and all, stable's bad and all."""
        rows = [row for row in self._rows if row[0] > at - SHORT_S]
        return (
            sum(row[1] for row in rows),
            sum(row[2] for row in rows),
            sum(row[3] for row in rows),
            sum(row[4] for row in rows),
        )

    def alarm(self, at: float) -> str:
        """Why to roll back at once, in words; empty when there is no reason."""
        if self._canary_ok == 0 and self._canary_bad >= _SILENT_REQUESTS and self._stable_ok > self._canary_bad:
            return f"guardrail: none of the canary's {self._canary_bad:,} requests in this step was answered"
        return self._scan(at, SHORT_S) or self._scan(at, LONG_S)

    def _scan(self, at: float, window_s: float) -> str:
        rows = [row for row in self._rows if row[0] > at - window_s]
        bad = sum(row[1] for row in rows)
        n_canary = sum(row[2] for row in rows)
        n_stable = sum(row[4] for row in rows)
        if bad < 2 or bad < _MIN_SHARE * n_canary or n_stable < _MIN_STABLE[window_s]:
            return ""
        if sum(1 for row in rows if row[1]) < 2:
            return ""
        bad_stable = sum(row[3] for row in rows)
        rate = max(bad_stable / n_stable, _LEAST_RATE)
        expected = sum(row[2] * (row[3] + _PRIOR_REQUESTS * rate) / (row[4] + _PRIOR_REQUESTS) for row in rows)
        if bad <= _MIN_EXCESS * expected or bad * math.log(bad / expected) - (bad - expected) <= _MIN_LOG_LIKELIHOOD:
            return ""
        return (
            f"guardrail: {bad:,} of the canary's {n_canary:,} requests failed within {window_s:.0f} s; "
            f"stable's failures explain {expected:.1f}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [list(row) for row in self._rows],
            "step": [self._canary_ok, self._canary_bad, self._stable_ok],
        }

    def load(self, value: Mapping[str, Any]) -> None:
        self._rows = deque((float(at), int(a), int(b), int(c), int(d)) for at, a, b, c, d in value["rows"])
        self._canary_ok, self._canary_bad, self._stable_ok = (int(part) for part in value["step"])
