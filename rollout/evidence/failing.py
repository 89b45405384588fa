"""Which callers are failing already, so that each counts once: the unit of analysis of sticky traffic.

A broken client fails on every request, whatever version it is on. Counted by request it is a failing version; here it
is one failure, on the version that it was on, until it has recovered. Pure, and bounded: callers that are well take no
memory. Used by `rollout.evidence.callers`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from rollout.evidence.logged import LoggedRequest
from rollout.ports import Outcome

RECOVERED = 50
"""Answered well this often in a row, a caller that has failed counts again. Without it the busiest callers of a healthy
version would all have failed once after some hours, and nobody would be left to tell of a version that breaks then. A
client of whose requests one in ten is broken gets there once in some 2,000 requests."""

FORGIVEN_S = 600.0
"""So does one that was answered well and has not failed for this long: a slow caller is not watched for days."""

MOST_FAILING = 100_000
"""Callers remembered, of all models: some 20 MB. Beyond it the one that failed longest ago is forgotten (and would
count once more)."""


@dataclass(slots=True)
class _Failing:
    """`good`: answered well since its last failure, at `at` (epoch seconds)."""

    good: int
    at: float


class FailingCallers:
    """`forgotten` counts callers that were given up at the limit."""

    def __init__(self, limit: int = MOST_FAILING) -> None:
        self._limit = limit
        self._failing: OrderedDict[int, _Failing] = OrderedDict()
        self._seen: set[tuple[int, int]] = set()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._failing)

    def begin_period(self) -> None:
        """From here on everybody may be counted again; call it once a second, and between two ticks."""
        self._seen.clear()

    def observe(self, request: LoggedRequest, at: float) -> tuple[int, int]:
        """What this request adds to its version's callers, and to those of them that failed: 0 or 1 each.

        In sums over whole periods there are never more failed callers than callers.
        """
        if request.outcome is Outcome.CALLER:
            return 0, 0
        failed = request.outcome is Outcome.BAD
        if not request.sticky:
            return 1, int(failed)
        known = self._failing.get(request.caller)
        if known is not None and failed:
            self._failed(request.caller, at)
            return 0, 0
        if known is not None and not self._recovers(request, known, at):
            return 0, 0
        who = (request.caller, request.version)
        first = who not in self._seen
        if failed:
            # Should it recover or be forgotten within this period, its next failure needs a caller of its own.
            self._seen.discard(who)
            self._failed(request.caller, at)
        else:
            self._seen.add(who)
        return int(first), int(failed)

    def _recovers(self, request: LoggedRequest, known: _Failing, at: float) -> bool:
        known.good += 1
        if known.good < RECOVERED and at - known.at < FORGIVEN_S:
            return False
        del self._failing[request.caller]
        return True

    def _failed(self, caller: int, at: float) -> None:
        self._failing[caller] = _Failing(0, at)
        self._failing.move_to_end(caller)
        if len(self._failing) > self._limit:
            self._failing.popitem(last=False)
            self.forgotten += 1
