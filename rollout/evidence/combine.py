"""Several sources of evidence as one: counts, labels and pairs, merged by model and version."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from rollout.ports import ArmCounts, Evidence, Tick


class Combined:
    """`rollout.ports.Evidence` of several sources, each asked about every model.

    A source that has nothing to do with a model's rollout leaves the model out. The first that knows the model gives
    the tick its time. A tick that any source misses is missing: accuracy without errors, or errors without accuracy,
    is not the evidence that the rollout was told to wait for. Pairs say themselves what they miss.
    """

    def __init__(self, first: Evidence, *others: Evidence) -> None:
        self._sources = (first, *others)

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        read = await asyncio.gather(*(source.read(models) for source in self._sources))
        known = {model: [ticks[model] for ticks in read if model in ticks] for model in models}
        return {model: _merged(ticks) for model, ticks in known.items() if ticks}


def plus(a: ArmCounts, b: ArmCounts) -> ArmCounts:
    """The sum of two counts of the same version. Latency buckets must have the same edges, predictions the same
    classes, or be absent in one."""
    return ArmCounts(
        ok=a.ok + b.ok,
        bad=a.bad + b.bad,
        caller=a.caller + b.caller,
        latency=_added(a.latency, b.latency),
        labelled=a.labelled + b.labelled,
        wrong=a.wrong + b.wrong,
        reward_count=a.reward_count + b.reward_count,
        reward_sum=a.reward_sum + b.reward_sum,
        predicted=_added(a.predicted, b.predicted),
        callers=a.callers + b.callers,
        bad_callers=a.bad_callers + b.bad_callers,
    )


def _added(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip_longest(a, b, fillvalue=0))


def _merged(ticks: Sequence[Tick]) -> Tick:
    missing = "; ".join(tick.missing for tick in ticks if tick.missing)
    arms: dict[int, ArmCounts] = {}
    for tick in ticks:
        for version, counts in tick.arms.items():
            arms[version] = plus(arms[version], counts) if version in arms else counts
    return replace(
        ticks[0],
        arms={} if missing else arms,
        edges_us=next((tick.edges_us for tick in ticks if tick.edges_us), ()),
        missing=missing,
        classes=next((tick.classes for tick in ticks if tick.classes), ()),
        paired=next((tick.paired for tick in ticks if tick.paired is not None), None),
        by_caller=any(tick.by_caller for tick in ticks),
        callers_missing=next((tick.callers_missing for tick in ticks if tick.callers_missing), ""),
    )
