"""Which sources a rollout listens to, by its spec.

Requests and errors must come from one place, or every request would count twice: from Prometheus where the spec has
it, from Envoy otherwise. Labels from feedback add to those of Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rollout.evidence.subject import FindSubject, Subject
from rollout.ports import Evidence, Tick


class Chosen:
    """`rollout.ports.Evidence` of one source, for those rollouts that listen to it."""

    def __init__(self, source: Evidence, *, subject: FindSubject, listens: Callable[[Subject], bool]) -> None:
        self._source = source
        self._subject = subject
        self._listens = listens

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """Ticks of the models that listen; a model without a rollout listens to everything."""
        listening = [model for model in models if (found := self._subject(model)) is None or self._listens(found)]
        return await self._source.read(listening)


def without_prometheus(subject: Subject) -> bool:
    """Whether the rollout's requests are counted by Envoy."""
    return subject.spec.prometheus is None
