"""The last day of every stable version's traffic in two halves, in SQLite: what the judge's noise is measured on.

Used by `rollout.evidence.history`, from its thread and from the loop. What is kept are counts; nothing in them names or
identifies a caller.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from threading import Lock

import numpy as np

from rollout.evidence.halves import COUNTS, LIMITS_US, WINDOWS, Stretch

KEPT_S = 24 * 3600.0

_FORMAT = 1
_SHAPES = ((WINDOWS, 2, len(COUNTS)), (2, len(LIMITS_US) + 1))
_SIZE = sum(int(np.prod(shape)) for shape in _SHAPES)


class HistoryStore:
    """Methods raise `sqlite3.Error`; they may be called from several threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._lock = Lock()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS stretches "
            "(line TEXT NOT NULL, at REAL NOT NULL, format INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS stretches_by_line ON stretches (line, at)")
        connection.execute("CREATE INDEX IF NOT EXISTS stretches_by_age ON stretches (at)")

    def add(self, stretches: Sequence[tuple[str, Stretch]], now: float) -> None:
        """Keep these, by routing line, and forget what is older than a day; one commit."""
        rows = [(line, stretch.at, _FORMAT, _packed(stretch)) for line, stretch in stretches]
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT INTO stretches (line, at, format, body) VALUES (?, ?, ?, ?)", rows)
                self._db.execute("DELETE FROM stretches WHERE at < ?", (now - KEPT_S,))
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def read(self, line: str, since: float) -> list[Stretch]:
        """In order of time. What another version of Penstock wrote in other buckets is left out."""
        with self._lock:
            cursor = self._db.cursor()
            cursor.row_factory = None
            rows = cursor.execute(
                "SELECT at, body FROM stretches WHERE line = ? AND at >= ? AND format = ? ORDER BY at",
                (line, since, _FORMAT),
            ).fetchall()
        return [stretch for at, body in rows if (stretch := _unpacked(at, body)) is not None]


def _packed(stretch: Stretch) -> bytes:
    parts = (np.ravel(stretch.counts), np.ravel(stretch.latency))
    return zlib.compress(np.concatenate(parts).astype("<u4").tobytes(), level=1)


def _unpacked(at: float, body: bytes) -> Stretch | None:
    try:
        numbers = np.frombuffer(zlib.decompress(body), dtype="<u4")
    except (zlib.error, ValueError):
        return None
    if len(numbers) != _SIZE:
        return None
    counts, latency = np.split(numbers, [int(np.prod(_SHAPES[0]))])
    return Stretch(at, counts.reshape(_SHAPES[0]), latency.reshape(_SHAPES[1]))
