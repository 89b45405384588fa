"""How often each version predicts each class, counted from the access log: the judge's evidence of drift.

A class has the same place in every tick and after every restart, without anything being kept: whole numbers by their
remainder, other labels by their checksum. Models with more classes than places share some, which can hide a change
between two classes and never makes one up.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rollout.evidence.feedback_store import Prediction
from rollout.evidence.labels import Label
from rollout.ports import ArmCounts, Clock, Tick

PLACES: Final = 32


class PredictedClasses:
    """`rollout.ports.Evidence`: predictions per class since the last read. The first starts the count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at = clock.now()
        self._counts: dict[str, defaultdict[int, list[int]]] = {}
        self._names: dict[str, list[str]] = {}

    def record(self, predictions: Iterable[Prediction]) -> None:
        """Count the labels of models that are being read."""
        for prediction in predictions:
            versions = self._counts.get(prediction.model)
            if versions is None or not prediction.labels:
                continue
            names = self._names.setdefault(prediction.model, [""] * PLACES)
            counts = versions[prediction.version]
            for label in prediction.labels:
                where = place(label)
                counts[where] += 1
                names[where] = names[where] or str(label)

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """Ticks with `predicted` alone. Never missing: labels are no condition for a rollout to go on."""
        now, since = self._clock.now(), self._at
        self._at = now
        ticks = {model: self._tick(model, now, now - since) for model in models}
        self._counts = {model: _no_counts() for model in models}
        self._names = {model: names for model, names in self._names.items() if model in ticks}
        return ticks

    def _tick(self, model: str, now: float, seconds: float) -> Tick:
        arms = {version: ArmCounts(predicted=tuple(counts)) for version, counts in self._counts.get(model, {}).items()}
        return Tick(at=now, seconds=seconds, arms=arms, classes=tuple(self._names[model]) if arms else ())


def place(label: Label) -> int:
    """Which of the places a label has."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, int):
        return label % PLACES
    return zlib.crc32(str(label).encode()) % PLACES


def _no_counts() -> defaultdict[int, list[int]]:
    return defaultdict(lambda: [0] * PLACES)
