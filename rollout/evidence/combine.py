"""Several sources of evidence as one: Envoy's counts and the feedback's labels, merged by model and version."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from rollout.ports import ArmCounts, Evidence, Tick


class Combined:
    """`rollout.ports.Evidence` of several sources. The first one gives a tick its time and its histogram edges.

    A tick that any source misses is missing: accuracy without errors, or errors without accuracy, is not the evidence
    that the rollout was told to wait for.
    """

    def __init__(self, first: Evidence, *others: Evidence) -> None:
        self._sources = (first, *others)

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        read = await asyncio.gather(*(source.read(models) for source in self._sources))
        return {model: _merged([ticks[model] for ticks in read]) for model in models}


def plus(a: ArmCounts, b: ArmCounts) -> ArmCounts:
    """The sum of two counts of the same version. Latency buckets must have the same edges, or be absent in one."""
    return ArmCounts(
        ok=a.ok + b.ok,
        bad=a.bad + b.bad,
        caller=a.caller + b.caller,
        latency=tuple(x + y for x, y in zip_longest(a.latency, b.latency, fillvalue=0)),
        labelled=a.labelled + b.labelled,
        wrong=a.wrong + b.wrong,
        reward_count=a.reward_count + b.reward_count,
        reward_sum=a.reward_sum + b.reward_sum,
    )


def _merged(ticks: Sequence[Tick]) -> Tick:
    first = ticks[0]
    missing = "; ".join(tick.missing for tick in ticks if tick.missing)
    arms: dict[int, ArmCounts] = {}
    for tick in ticks:
        for version, counts in tick.arms.items():
            arms[version] = plus(arms[version], counts) if version in arms else counts
    edges = next((tick.edges_us for tick in ticks if tick.edges_us), ())
    return Tick(at=first.at, seconds=first.seconds, arms={} if missing else arms, edges_us=edges, missing=missing)
