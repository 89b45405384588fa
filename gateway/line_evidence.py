"""Evidence by routing line: the sources count by a model's public name, rollouts are of lines (`digits@2`).

Stands between the rollout controller and the sources that read Envoy and the feedback. Version numbers belong to the
model, so the counts of two lines never mix: each rollout looks at its own versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.contract.lines import Line
from rollout.outlook import PresentTraffic, Traffic
from rollout.ports import Evidence, Tick


class LineTraffic:
    """`rollout.outlook.PresentTraffic` of lines, from one of models."""

    def __init__(self, source: PresentTraffic) -> None:
        self._source = source

    async def of(self, model: str, version: int) -> Traffic:
        return await self._source.of(Line.parse(model).model, version)


class LineEvidence:
    """`rollout.ports.Evidence` for lines, from one for models."""

    def __init__(self, source: Evidence) -> None:
        self._source = source

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """One tick per line name; two lines of a model get the same one."""
        names = {name: Line.parse(name).model for name in models}
        ticks = await self._source.read(sorted(set(names.values())))
        return {name: ticks[model] for name, model in names.items()}
