"""Figures of simulated rollouts with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy.stats import binom

from loadtest.bench.rollout.cells import Figure, Target
from loadtest.bench.rollout.simulate import Outcome

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its interval; NaN when no run has it (no rollback), infinite when most never got there."""

    value: float
    low: float
    high: float
    runs: int

    def against(self, target: Target) -> str:
        """ "excellent", "holds" or "MISSED", by the measured value."""
        if self.value <= target.excellent:
            return "excellent"
        return "holds" if self.value <= target.must else "MISSED"


def measure(figure: Figure, outcomes: Sequence[Outcome]) -> Measured:
    caught = [outcome for outcome in outcomes if outcome.rolled_back]
    runs = len(outcomes)
    match figure:
        case Figure.FALSE_ROLLBACK:
            return share(len(caught), runs)
        case Figure.MISSED:
            return share(sum(outcome.missed for outcome in outcomes), runs)
        case Figure.REQUESTS:
            # A run that never rolled back counts as later than any: the median must not flatter.
            return middle([o.canary_requests if o.rolled_back else math.inf for o in outcomes])
        case Figure.SECONDS:
            return middle([o.seconds if o.rolled_back else math.inf for o in outcomes])
        case Figure.BAD:
            return mean([outcome.canary_bad for outcome in outcomes])
        case Figure.MINUTES:
            return middle([math.inf if o.full_at is None else o.full_at / 60 for o in outcomes])


def share(hits: int, runs: int) -> Measured:
    """A share; interval of Wilson, 1927."""
    if not runs:
        return Measured(math.nan, 0.0, 1.0, 0)
    part = hits / runs
    centre = (part + _Z * _Z / (2 * runs)) / (1 + _Z * _Z / runs)
    half = _Z * math.sqrt(part * (1 - part) / runs + _Z * _Z / (4 * runs * runs)) / (1 + _Z * _Z / runs)
    low, high = centre - half if hits else 0.0, centre + half if hits < runs else 1.0
    return Measured(part, low, high, runs)


def middle(values: Sequence[float]) -> Measured:
    """The median; interval between order statistics, by the binomial distribution."""
    ordered, runs = sorted(values), len(values)
    if not runs:
        return Measured(math.nan, math.nan, math.nan, 0)
    low = max(int(binom.ppf(0.025, runs, 0.5)) - 1, 0)
    return Measured(median(ordered), ordered[low], ordered[runs - 1 - low], runs)


def mean(values: Sequence[float]) -> Measured:
    """The mean; normal interval."""
    if not values:
        return Measured(math.nan, math.nan, math.nan, 0)
    half = _Z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    centre = fmean(values)
    return Measured(centre, centre - half, centre + half, len(values))
