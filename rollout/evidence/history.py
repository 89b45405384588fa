"""The history of stable, from the access log to the start of the next rollout, which is calibrated on it.

`rollout.evidence.callers` feeds it every prediction; it counts in memory, and writes what is complete every five
minutes, in a thread: no request, no tick and no journal record waits for it. A control plane that is killed loses
the five minutes that it was counting, a clean stop nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from rollout.calibration import Calibrated, calibrate
from rollout.evidence.halves import Counting, Stretch, start_of
from rollout.evidence.history_store import KEPT_S, HistoryStore
from rollout.evidence.logged import LoggedRequest
from rollout.ports import Clock

_log = logging.getLogger(__name__)

MOST_VERSIONS = 1_000
"""Versions with traffic in the same five minutes that are counted, 10 KB each. On disk a busy one takes some 0.3 MB a
day."""

StableLines = Callable[[], Mapping[tuple[str, int], str]]
"""Which (model, version) is stable now, and of which routing line."""


class StableHistory:
    """`rollout.calibration.History`. `written` and `dropped` count stretches of five minutes, `uncounted` requests of
    versions beyond the limit."""

    def __init__(self, *, store: HistoryStore, stable: StableLines, clock: Clock) -> None:
        self._store = store
        self._stable = stable
        self._clock = clock
        self._counting: dict[tuple[str, int], Counting] = {}
        self._began = 0.0
        self._full: list[tuple[str, Stretch]] = []
        self._writer: asyncio.Task[None] | None = None
        self.written = 0
        self.dropped = 0
        self.uncounted = 0

    def add(self, request: LoggedRequest, callers: int, failed: int, at: float) -> None:
        """Count one request, and the callers that it stands for. Call it in the event loop; never blocks."""
        if start_of(at) != self._began:
            self._turn_over()
            self._began = start_of(at)
            if self._full and (self._writer is None or self._writer.done()):
                self._writer = asyncio.create_task(self._write(), name="history writer")
        version = (request.model, request.version)
        counting = self._counting.get(version)
        if counting is None:
            if len(self._counting) >= MOST_VERSIONS:
                self.uncounted += 1
                return
            counting = self._counting[version] = Counting(self._began)
        counting.add(request, callers, failed, at)

    def of(self, line: str) -> Calibrated:
        """What the last day of the line's stable versions tells of noise."""
        try:
            kept = self._store.read(line, self._clock.now() - KEPT_S)
        except sqlite3.Error as error:
            return Calibrated(trouble=f"the history cannot be read: {error}")
        return calibrate([*kept, *(stretch for name, stretch in (*self._full, *self._of_stable()) if name == line)])

    async def close(self) -> None:
        """Write what was counted so far."""
        if self._writer is not None:
            await self._writer
        self._turn_over()
        await self._write()

    def _of_stable(self) -> Sequence[tuple[str, Stretch]]:
        lines = self._stable()
        return [(lines[version], found.stretch()) for version, found in self._counting.items() if version in lines]

    def _turn_over(self) -> None:
        found, self._counting = self._of_stable(), {}
        room = max(0, 2 * MOST_VERSIONS - len(self._full))  # A disk that hangs must not fill the memory.
        self.dropped += max(0, len(found) - room)
        self._full += found[:room]

    async def _write(self) -> None:
        while self._full:
            batch = tuple(self._full)
            try:
                await asyncio.to_thread(self._store.add, batch, self._clock.now())
                self.written += len(batch)
            except sqlite3.Error as error:
                self.dropped += len(batch)
                _log.error("five minutes of history of %d models were not kept: %s", len(batch), error)
            del self._full[: len(batch)]
