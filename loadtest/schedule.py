"""When requests are due: a rate that changes over time, and the instant of every arrival under it.

An open-loop test sends the n-th request at the instant that the schedule says, whether or not earlier ones have been
answered; latency counted from that instant hides no waiting (Schroeder, Wierman, Harchol-Balter: Open Versus Closed,
NSDI 2006; "coordinated omission"). Pure: no clock. Used by `loadtest.pace`; shapes come from `loadtest.scenarios`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of time over which the rate (requests per second, or users) goes linearly from `start` to `end`."""

    seconds: float
    start: float
    end: float

    @property
    def arrivals(self) -> float:
        """The area below the rate."""
        return self.seconds * (self.start + self.end) / 2


class Schedule:
    """Stages one after the other."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        if not stages or any(stage.seconds <= 0 or min(stage.start, stage.end) < 0 for stage in stages):
            raise ValueError(f"expected stages that last, with rates of at least 0, received {stages!r}")
        self.stages = stages
        self._begins = [0.0, *accumulate(stage.seconds for stage in stages)]
        self._counts = [0.0, *accumulate(stage.arrivals for stage in stages)]

    @property
    def seconds(self) -> float:
        return self._begins[-1]

    @property
    def arrivals(self) -> int:
        """How many requests it asks for: the n-th (from 0) is due when the area below the rate reaches n."""
        return math.ceil(self._counts[-1] - 1e-9)

    @property
    def peak(self) -> float:
        return max(max(stage.start, stage.end) for stage in self.stages)

    def rate_at(self, second: float) -> float:
        """The rate at an instant; the last one after the end."""
        index = min(bisect_right(self._begins, second) - 1, len(self.stages) - 1)
        stage = self.stages[index]
        part = min(1.0, max(0.0, (second - self._begins[index]) / stage.seconds))
        return stage.start + (stage.end - stage.start) * part

    def due(self, n: int) -> float | None:
        """The instant, in seconds from the start, of arrival n (from 0); None when there is no such arrival."""
        if n >= self.arrivals:
            return None
        index = min(bisect_right(self._counts, n) - 1, len(self.stages) - 1)
        stage = self.stages[index]
        wanted = n - self._counts[index]
        slope = (stage.end - stage.start) / stage.seconds
        # The root of slope/2 t^2 + start t = wanted, in the form that stays exact for a slope near 0.
        root = math.sqrt(max(0.0, stage.start**2 + 2 * slope * wanted))
        divisor = stage.start + root
        return self._begins[index] + (min(stage.seconds, 2 * wanted / divisor) if divisor else 0.0)

    def share(self, worker: int, workers: int) -> Iterator[float]:
        """The instants of one of several workers, who take arrivals in turn."""
        n = worker
        while (due := self.due(n)) is not None:
            yield due
            n += workers


def constant(rate: float, seconds: float) -> Schedule:
    return Schedule((Stage(seconds, rate, rate),))
