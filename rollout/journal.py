"""The durable, append-only record of every rollout, in SQLite; the controller writes here before it acts.

Used by `rollout.controller` (writes, resumes) and by `rollout.explain` (reads). The connection is the owner's: it
sets WAL mode and the synchronous level; this module makes its own two tables and commits each append by itself.
What the bodies mean is the business of `rollout.run` and `rollout.records`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rollout.machine import FINAL, Progress, State

_TABLES = (
    """CREATE TABLE IF NOT EXISTS rollouts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        model TEXT NOT NULL,
        candidate INTEGER NOT NULL,
        stable INTEGER NOT NULL,
        spec TEXT NOT NULL,
        created_at REAL NOT NULL,
        state TEXT NOT NULL,
        settled INTEGER NOT NULL,
        ended_at REAL
    )""",
    "CREATE INDEX IF NOT EXISTS rollouts_by_model ON rollouts (model, id)",
    "CREATE INDEX IF NOT EXISTS rollouts_open ON rollouts (settled) WHERE settled = 0",
    """CREATE TABLE IF NOT EXISTS journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        rollout_id INTEGER NOT NULL REFERENCES rollouts (id),
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS journal_by_rollout ON journal (rollout_id, seq)",
    "CREATE INDEX IF NOT EXISTS calibrations ON journal (rollout_id, seq) WHERE kind = 'calibration'",
    """CREATE TRIGGER IF NOT EXISTS journal_is_append_only BEFORE UPDATE ON journal
        BEGIN SELECT RAISE(ABORT, 'the rollout journal is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS journal_keeps_all BEFORE DELETE ON journal
        BEGIN SELECT RAISE(ABORT, 'the rollout journal is append-only'); END""",
)
_ROLLOUT = "SELECT id, model, candidate, stable, spec, created_at, state, settled, ended_at FROM rollouts"
_RECORD = "SELECT seq, rollout_id, at, kind, body FROM journal"


class JournalError(Exception):
    """The journal cannot be read or written; nothing is done that is not recorded first. The cause is chained."""


class Kind(StrEnum):
    TRANSITION = "transition"
    """A changed `Progress` with the event, the verdict and the judge's state: enough to go on from."""
    TICK = "tick"
    """The evidence of one tick, as it was given to the judge."""
    CHECKPOINT = "checkpoint"
    """The judge's state and last verdict in between, so that a restart has few ticks to judge again."""
    CALIBRATION = "calibration"
    """The noise of stable that the judge allows for (`rollout.calibration`), before the rollout's first step."""
    NOTE = "note"
    """Something for a person to know (trouble in a call, a controller that was away)."""


SNAPSHOTS = (Kind.TRANSITION, Kind.CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Record:
    """One journal line. `seq` is 0 until it is written."""

    rollout_id: int
    at: float
    kind: Kind
    body: Mapping[str, Any]
    seq: int = 0


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """The index of rollouts: what each moves, and the last state in the journal.

    `ended_at` is when it was decided (promoted, rolled back, aborted, failed), epoch seconds.
    """

    id: int
    model: str
    candidate: int
    stable: int
    spec: Mapping[str, Any]
    created_at: float
    state: State
    settled: bool
    ended_at: float | None


class Journal:
    """All methods raise `JournalError` when SQLite does. Not for use from several threads.

    `written` and `written_bytes` count the records of this process, and the size of their bodies.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.written: Counter[Kind] = Counter()
        self.written_bytes = 0
        with self._transaction():
            for statement in _TABLES:
                connection.execute(statement)

    def open_rollout(self, *, model: str, candidate: int, stable: int, spec: Mapping[str, Any], at: float) -> int:
        """Register a rollout as pending; its id."""
        with self._transaction():
            cursor = self._connection.execute(
                "INSERT INTO rollouts (model, candidate, stable, spec, created_at, state, settled)"
                " VALUES (?, ?, ?, ?, ?, ?, 0)",
                (model, candidate, stable, _dump(spec), at, State.PENDING.value),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def append(self, records: Sequence[Record]) -> int:
        """Write the records in one commit; the last one's sequence number."""
        seq, bodies = 0, [_dump(record.body) for record in records]
        with self._transaction():
            for record, body in zip(records, bodies, strict=True):
                cursor = self._connection.execute(
                    "INSERT INTO journal (rollout_id, at, kind, body) VALUES (?, ?, ?, ?)",
                    (record.rollout_id, record.at, record.kind.value, body),
                )
                assert cursor.lastrowid is not None
                seq = cursor.lastrowid
                if record.kind is Kind.TRANSITION:
                    self._index(record)
        self.written.update(record.kind for record in records)
        self.written_bytes += sum(map(len, bodies))
        return seq

    def read(self, rollout_id: int) -> list[Record]:
        """Everything written about a rollout, in order."""
        return self._records(f"{_RECORD} WHERE rollout_id = ? ORDER BY seq", (rollout_id,))

    def since_snapshot(self, rollout_id: int) -> list[Record]:
        """The last transition, the calibration, and what came from the last snapshot on: what a resume needs."""
        kinds = tuple(kind.value for kind in SNAPSHOTS)
        last = "(SELECT MAX(seq) FROM journal WHERE rollout_id = ? AND kind = 'transition')"
        calibration = "(SELECT MAX(seq) FROM journal WHERE rollout_id = ? AND kind = 'calibration')"
        snapshot = "(SELECT MAX(seq) FROM journal WHERE rollout_id = ? AND kind IN (?, ?))"
        return self._records(
            f"{_RECORD} WHERE rollout_id = ? AND (seq IN ({last}, {calibration}) OR seq >= {snapshot}) ORDER BY seq",
            (rollout_id, rollout_id, rollout_id, rollout_id, *kinds),
        )

    def rollout(self, rollout_id: int) -> RolloutRow | None:
        rows = self._rollouts(f"{_ROLLOUT} WHERE id = ?", (rollout_id,))
        return rows[0] if rows else None

    def active(self) -> list[RolloutRow]:
        """Rollouts that are not settled, oldest first: queued, running, or promoted and still undoable."""
        return self._rollouts(f"{_ROLLOUT} WHERE settled = 0 ORDER BY id", ())

    def history(self, model: str, limit: int = 100) -> list[RolloutRow]:
        """A model's rollouts, newest first."""
        return self._rollouts(f"{_ROLLOUT} WHERE model = ? ORDER BY id DESC LIMIT ?", (model, limit))

    def last_decided(self, model: str) -> RolloutRow | None:
        """The rollout of the model that was decided last."""
        query = f"{_ROLLOUT} WHERE model = ? AND ended_at IS NOT NULL ORDER BY ended_at DESC, id DESC LIMIT 1"
        rows = self._rollouts(query, (model,))
        return rows[0] if rows else None

    def _index(self, record: Record) -> None:
        progress = Progress.from_json(record.body["progress"])
        self._connection.execute(
            "UPDATE rollouts SET state = ?, settled = ?, stable = ?,"
            " ended_at = CASE WHEN ? THEN CASE WHEN state = ? THEN ended_at ELSE ? END ELSE NULL END WHERE id = ?",
            (
                progress.state.value,
                progress.settled,
                record.body["stable"],
                progress.state in FINAL,
                progress.state.value,
                record.at,
                record.rollout_id,
            ),
        )

    def _records(self, query: str, parameters: Sequence[object]) -> list[Record]:
        return [
            Record(rollout_id=rid, at=at, kind=Kind(kind), body=json.loads(body), seq=seq)
            for seq, rid, at, kind, body in self._select(query, parameters)
        ]

    def _rollouts(self, query: str, parameters: Sequence[object]) -> list[RolloutRow]:
        return [
            RolloutRow(rid, model, candidate, stable, json.loads(spec), created, State(state), bool(settled), ended)
            for rid, model, candidate, stable, spec, created, state, settled, ended in self._select(query, parameters)
        ]

    def _select(self, query: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            cursor = self._connection.cursor()
            cursor.row_factory = None
            return cursor.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"cannot read the rollout journal: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One commit, whatever isolation level the owner of the connection chose."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise
        except sqlite3.Error as error:
            raise JournalError(
                f"cannot write the rollout journal: {error}; check the disk under the data directory"
            ) from error


def _dump(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))
