"""What a canary must be shown not to exceed before a step may be passed, and how that relaxes while it waits.

A margin is part of the hypothesis that is tested, never a filter afterwards. It is coarse in an early step, where the
next one still risks few callers, and tight before everybody gets the version. At low traffic a tight margin cannot be
shown in a day, so it relaxes with the time judged, and the margin that was proven is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from rollout.judge.evalues import FloatArray


@dataclass(frozen=True, slots=True)
class Margin:
    """Pairs (until, margin): seconds judged since the rollout began, and the margin in force up to then.

    The last row holds for ever, whatever its time. A margin of None asks for nothing.
    """

    rows: tuple[tuple[float, float | None], ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("margin: expected at least one row (until seconds, margin), received none")
        times = [until for until, _ in self.rows]
        if times != sorted(times):
            raise ValueError(f"margin: expected rows in order of time, received {times}")
        for _, value in self.rows:
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"margin: expected a positive number or none, received {value}")

    @classmethod
    def fixed(cls, value: float | None) -> Margin:
        """One margin that never relaxes."""
        return cls(((math.inf, value),))

    @property
    def relents(self) -> bool:
        """Whether nothing is asked in the end."""
        return self.rows[-1][1] is None

    def row_at(self, judged_s: float) -> int:
        for index, (until, _) in enumerate(self.rows):
            if judged_s < until:
                return index
        return len(self.rows) - 1

    def at(self, judged_s: float) -> float | None:
        return self.rows[self.row_at(judged_s)][1]

    def values(self, *, placeholder: float) -> FloatArray:
        """Every row's margin; `placeholder` stands where nothing is asked, so that rows keep their index."""
        return np.array([placeholder if value is None else value for _, value in self.rows])


_NOTHING = Margin.fixed(None)


@dataclass(frozen=True, slots=True)
class StepMargins:
    """The margins of one step.

    errors:       share of requests that may fail beyond stable's share (0.01 = one point)
    p50, p99:     how much later the median and the 99th percentile may be (0.22 = 22 %, to the nearest bucket edge)
    wrong_ratio:  wrong answers may be at most this many times stable's (labels)
    reward_ratio: the same for lost reward, 1 - mean reward
    """

    errors: Margin
    p50: Margin = _NOTHING
    p99: Margin = _NOTHING
    wrong_ratio: Margin = _NOTHING
    reward_ratio: Margin = _NOTHING

    def __post_init__(self) -> None:
        for name, margin in (("wrong_ratio", self.wrong_ratio), ("reward_ratio", self.reward_ratio)):
            for _, value in margin.rows:
                if value is not None and value <= 1.0:
                    raise ValueError(f"margins.{name}: expected a ratio above 1 (1.2 = a fifth more), received {value}")
        for _, value in self.errors.rows:
            if value is not None and value >= 1.0:
                raise ValueError(f"margins.errors: expected a share below 1 (0.01 = one point), received {value}")


_INF = math.inf

_EARLY = StepMargins(
    errors=Margin(((600, 0.01), (1500, 0.02), (_INF, 0.05))),
    p50=Margin(((1500, 0.22), (_INF, 0.48))),
    p99=Margin(((600, 0.48), (_INF, None))),
    wrong_ratio=Margin(((600, 1.5), (_INF, None))),
    reward_ratio=Margin(((600, 1.5), (_INF, None))),
)

_FINAL = StepMargins(
    errors=Margin(((900, 0.004), (2100, 0.01), (2700, 0.02), (_INF, 0.05))),
    p50=Margin(((1500, 0.10), (2700, 0.22), (_INF, 0.48))),
    p99=Margin(((3600, 0.22), (5400, 0.48), (_INF, None))),
    wrong_ratio=Margin(((900, 1.2), (2100, 1.5), (_INF, None))),
    reward_ratio=Margin(((900, 1.2), (2100, 1.5), (_INF, None))),
)

_BAKE = StepMargins(errors=Margin.fixed(0.05), p50=Margin.fixed(0.48))

BAKE_WEIGHT_BP = 9000
"""From this weight on a step is a bake: everything was shown before, stable is a small holdback, and the step asks
only that nothing is grossly wrong."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Margins by the place of a step in the rollout (measured defaults: see docs on the judge).

    `early` for a step followed by another partial one, `final` for the step whose success gives the canary all
    traffic, `bake` for what runs at (nearly) full weight.
    """

    early: StepMargins = field(default=_EARLY)
    final: StepMargins = field(default=_FINAL)
    bake: StepMargins = field(default=_BAKE)

    def of_step(self, weight_bp: int, last: bool) -> StepMargins:
        if weight_bp >= BAKE_WEIGHT_BP:
            return self.bake
        return self.final if last else self.early

    def with_fixed(
        self,
        *,
        errors: float | None = None,
        p50: float | None = None,
        p99: float | None = None,
        wrong_ratio: float | None = None,
        reward_ratio: float | None = None,
    ) -> Margins:
        """The same margins with an owner's fixed ones in early and final steps.

        None leaves a metric's schedule, 0 asks nothing of it before a step is passed.
        """
        given = {
            "errors": errors,
            "p50": p50,
            "p99": p99,
            "wrong_ratio": wrong_ratio,
            "reward_ratio": reward_ratio,
        }
        changes = {name: Margin.fixed(value or None) for name, value in given.items() if value is not None}
        return replace(self, early=replace(self.early, **changes), final=replace(self.final, **changes))
