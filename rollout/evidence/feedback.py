"""The feedback store from asyncio: `FeedbackDesk` takes, `FeedbackEvidence` gives the judge the joined counts.

The access log service and `POST /v1/feedback` write to the desk; the controller reads the evidence once per tick.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rollout.evidence.feedback_request import Feedback
from rollout.evidence.feedback_store import FeedbackRefused, FeedbackStore, Prediction, Receipt
from rollout.ports import ArmCounts, Clock, Tick

_log = logging.getLogger(__name__)
T = TypeVar("T")


class FeedbackUnavailable(Exception):
    """The store cannot be written; nothing was recorded. Check the disk under the data directory."""


@dataclass(slots=True)
class _Waiting:
    """What the next commit takes."""

    predictions: list[Prediction] = field(default_factory=list)
    feedback: list[tuple[Feedback, asyncio.Future[Receipt | FeedbackRefused]]] = field(default_factory=list)


class FeedbackDesk:
    """What arrives while one commit runs goes into the next one, in a thread.

    So a burst of labels costs few commits, and the disk never stalls the loop that renews the canary's lease.
    """

    MAX_WAITING = 50_000
    """Predictions that may wait for a commit; more are dropped, newest first, and counted in `dropped`."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store
        self._waiting = _Waiting()
        self._busy = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self.dropped = 0

    @property
    def store(self) -> FeedbackStore:
        return self._store

    def log(self, predictions: Sequence[Prediction]) -> None:
        """Take predictions from the access log; they are committed soon. Never blocks, never raises."""
        room = max(0, self.MAX_WAITING - len(self._waiting.predictions))
        self.dropped += max(0, len(predictions) - room)
        self._waiting.predictions.extend(predictions[:room])
        self._write_soon()

    async def take(self, feedback: Feedback) -> Receipt:
        """Record feedback; durable on return. Raises FeedbackRefused, FeedbackUnavailable."""
        outcome: asyncio.Future[Receipt | FeedbackRefused] = asyncio.get_running_loop().create_future()
        self._waiting.feedback.append((feedback, outcome))
        self._write_soon()
        result = await outcome
        if isinstance(result, FeedbackRefused):
            raise result
        return result

    async def counts(
        self, model: str, since: int, until: int, answered_since: Mapping[int, float] | None = None
    ) -> dict[int, ArmCounts]:
        return await self.ask(lambda: self._store.counts(model, since, until, answered_since))

    async def ask(self, work: Callable[[], T]) -> T:
        """Do `work` on the store's connection, in a thread, between two commits."""
        async with self._busy:
            return await asyncio.to_thread(work)

    async def close(self) -> None:
        """Commit what has arrived."""
        if self._writer is not None:
            await self._writer

    def _write_soon(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="feedback writer")

    async def _write(self) -> None:
        while self._waiting.predictions or self._waiting.feedback:
            async with self._busy:
                batch, self._waiting = self._waiting, _Waiting()
                try:
                    results = await asyncio.to_thread(
                        self._store.record, batch.predictions, [item for item, _ in batch.feedback]
                    )
                except sqlite3.Error as error:
                    self._fail(batch, error)
                    continue
            for (_, outcome), result in zip(batch.feedback, results, strict=True):
                if not outcome.done():  # A caller who hung up cancelled it.
                    outcome.set_result(result)

    def _fail(self, batch: _Waiting, error: sqlite3.Error) -> None:
        self.dropped += len(batch.predictions)
        _log.error("%d predictions and %d labels were not kept: %s", len(batch.predictions), len(batch.feedback), error)
        unavailable = FeedbackUnavailable(f"the feedback store cannot be written: {error}")
        unavailable.__cause__ = error
        for _, outcome in batch.feedback:
            if not outcome.done():
                outcome.set_exception(unavailable)


class FeedbackEvidence:
    """`rollout.ports.Evidence`: labels and rewards per version that were joined since the last read.

    They count when they arrive, in whatever step that is: both versions wait alike. What a version answered before the
    rollout's first step counts for nothing, however late its label comes: no answers of the other version to the same
    traffic stand beside it. `exposed` says since when the answers of each version of a model count.
    """

    def __init__(self, *, desk: FeedbackDesk, clock: Clock, exposed: Callable[[str], Mapping[int, float]]) -> None:
        self._desk = desk
        self._clock = clock
        self._exposed = exposed
        self._since: dict[str, tuple[int, float]] = {}

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        now, position = self._clock.now(), self._desk.store.position
        ticks: dict[str, Tick] = {}
        for model in models:
            since, started = self._since.get(model, (position, now))
            try:
                arms = await self._desk.counts(model, since, position, self._exposed(model))
            except sqlite3.Error as error:
                ticks[model] = Tick(
                    at=now, seconds=now - started, missing=f"the feedback store cannot be read: {error}"
                )
                continue
            ticks[model] = Tick(at=now, seconds=now - started, arms=arms)
        # Models that are not read now start anew; a failed one is read again from where it was.
        self._since = {
            model: self._since.get(model, (position, now)) if tick.missing else (position, now)
            for model, tick in ticks.items()
        }
        return ticks
