"""What a canary must be shown not to exceed before a step may be passed, and how that relaxes while it waits.

A margin is part of the hypothesis that is tested, never a filter afterwards. It is coarse in an early step, where the
next one still risks few callers, and tight before everybody gets the version. At low traffic a tight margin cannot be
shown in a day, so it relaxes with the time judged, and the margin that was proven is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

import numpy as np

from rollout.judge.evalues import BoolArray, FloatArray, IntArray


class Stage(StrEnum):
    """The place of a step in its rollout, which says what must be shown in it."""

    EARLY = "early"
    """Another partial step follows: a coarse margin will do, since that one still risks few callers."""
    FINAL = "final"
    """Its success gives the canary (nearly) all traffic: the tight margins."""
    BAKE = "bake"
    """Everything was shown before, stable is a holdback: nothing may be grossly wrong."""

    @classmethod
    def of(cls, step: int, steps: int) -> Self:
        """The stage of `step` (from 0) of `steps`. A single step must show everything by itself."""
        if steps > 1 and step == steps - 1:
            return cls("bake")
        return cls("final" if step >= steps - 2 else "early")


STAGES = tuple(Stage)


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

    def at(self, judged_s: float) -> float | None:
        """The margin in force; None asks for nothing."""
        return next((value for until, value in self.rows if judged_s < until), self.rows[-1][1])


class MarginTable:
    """One metric's margins in every stage, padded to as many rows as the longest schedule has.

    `values` (stage, row) is the margin, `placeholder` where nothing is asked, so that rows keep their index; `asked`
    says where it is. `relents` (stage): whether nothing is asked in the end.
    """

    def __init__(self, stages: tuple[Margin, ...], *, placeholder: float):
        longest = max(len(margin.rows) for margin in stages)
        padded = [(*margin.rows, *[margin.rows[-1]] * (longest - len(margin.rows))) for margin in stages]
        self.rows = longest
        self.asked = np.array([[value is not None for _, value in rows] for rows in padded])
        self.values: FloatArray = np.array(
            [[placeholder if value is None else value for _, value in rows] for rows in padded]
        )
        self.relents = np.array([margin.relents for margin in stages])
        self._until: FloatArray = np.array(
            [
                [until if index < len(margin.rows) - 1 else math.inf for index, (until, _) in enumerate(rows)]
                for margin, rows in zip(stages, padded, strict=True)
            ]
        )

    def row_at(self, stage: IntArray, judged_s: FloatArray, stays: BoolArray | None = None) -> IntArray:
        """Index of the row in force, per rollout: the first whose time is not over, or that `stays` (rollout, row)."""
        holds = judged_s[:, None] < self._until[stage]
        if stays is not None:
            holds |= stays
        result: IntArray = holds.argmax(axis=1)
        return result


_NOTHING = Margin.fixed(None)


@dataclass(frozen=True, slots=True)
class StepMargins:
    """The margins of one step.

    errors:       share of requests that may fail beyond stable's share (0.01 = one point)
    p50, p95, p99: how much later these quantiles may be (0.22 = 22 %, to the nearest bucket edge)
    wrong_ratio:  wrong answers may be at most this many times stable's (labels)
    reward_ratio: the same for lost reward, 1 - mean reward
    """

    errors: Margin
    p50: Margin = _NOTHING
    p95: Margin = _NOTHING
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
    errors=Margin(((210, 0.0025), (480, 0.005), (900, 0.01), (1200, 0.02), (_INF, 0.05))),
    p50=Margin(((1200, 0.22), (_INF, 0.48))),
    p95=Margin(((600, 0.48), (_INF, None))),
    p99=Margin(((420, 0.48), (_INF, None))),
    wrong_ratio=Margin(((420, 1.5), (_INF, None))),
    reward_ratio=Margin(((420, 1.5), (_INF, None))),
)

_FINAL = StepMargins(
    errors=Margin(((450, 0.0025), (1500, 0.004), (2100, 0.01), (2700, 0.02), (_INF, 0.05))),
    p50=Margin(((1500, 0.10), (2400, 0.22), (_INF, 0.48))),
    p95=Margin(((2400, 0.22), (4200, 0.48), (_INF, None))),
    p99=Margin(((1800, 0.22), (2400, 0.48), (_INF, None))),
    wrong_ratio=Margin(((420, 1.2), (900, 1.3), (1150, 1.5), (2100, 1.75), (_INF, None))),
    reward_ratio=Margin(((420, 1.2), (900, 1.3), (1150, 1.5), (2100, 1.75), (_INF, None))),
)

_BAKE = StepMargins(errors=Margin.fixed(0.05), p50=Margin.fixed(0.48))


@dataclass(frozen=True, slots=True)
class Margins:
    """Margins by stage (measured defaults: docs/benchmarks/judge.md)."""

    early: StepMargins = field(default=_EARLY)
    final: StepMargins = field(default=_FINAL)
    bake: StepMargins = field(default=_BAKE)

    def of(self, metric: str) -> tuple[Margin, ...]:
        """One metric's margins (a field of `StepMargins`) in the order of `STAGES`."""
        return tuple(getattr(step, metric) for step in (self.early, self.final, self.bake))

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

        None leaves a metric's schedule, 0 asks nothing of it before a step is passed. `p99` is asked of the 95th
        percentile too, which shows a slower tail with a tenth of the requests.
        """
        given = {
            "errors": errors,
            "p50": p50,
            "p95": p99,
            "p99": p99,
            "wrong_ratio": wrong_ratio,
            "reward_ratio": reward_ratio,
        }
        changes = {name: Margin.fixed(value or None) for name, value in given.items() if value is not None}
        return replace(self, early=replace(self.early, **changes), final=replace(self.final, **changes))
