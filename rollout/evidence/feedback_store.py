"""Which version answered a request, and what its caller later said of the answer; joined in SQLite.

Predictions arrive from Envoy's access log, up to a second late; feedback arrives from callers, sometimes before the
log entry. Both are kept, and joined when the second comes. Used through `rollout.evidence.feedback`.

Predictions are bounded in number and age, unmatched feedback in number and time, so that neither can fill the disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from rollout.evidence.feedback_request import Entry, Feedback, Kind
from rollout.evidence.labels import Label, same_label
from rollout.ports import ArmCounts, Clock


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered request. `labels` are the predicted labels per row; None when the model has none.

    `at` in seconds since the epoch.
    """

    request_id: str
    model: str
    version: int
    labels: tuple[Label, ...] | None
    at: float


class ReceiptState(StrEnum):
    JOINED = "joined"
    """Attributed to the version that answered, and counted."""
    PENDING = "pending"
    """Kept; the request's log entry has not arrived."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one feedback, durable when the caller sees it.

    `duplicate`: the very same feedback was recorded before, and nothing changed. `model` and `version` are those
    that answered, when known.
    """

    request_id: str
    state: ReceiptState
    duplicate: bool
    rows: int
    model: str | None = None
    version: int | None = None


class FeedbackRefused(Exception):
    """The feedback does not fit the prediction it names; nothing was recorded. Fields as in an error's details."""

    def __init__(self, message: str, *, field: str, expected: str, received: str) -> None:
        super().__init__(message)
        self.field = field
        self.expected = expected
        self.received = received


class FeedbackConflict(FeedbackRefused):
    """Other feedback is recorded for the same row."""


class TooMuchPending(FeedbackRefused):
    """Too much feedback waits for its prediction; try again later."""


@dataclass(frozen=True, slots=True)
class FeedbackLimits:
    """What is kept, and for how long.

    max_predictions: the newest this many can still get feedback
    retain_s:        predictions and joined feedback older than this are dropped
    join_limit_s:    feedback whose prediction has not appeared by then is given up; the access log is a second late
    max_pending:     feedback rows that may wait for a prediction; more is refused
    """

    max_predictions: int = 1_000_000
    retain_s: float = 7 * 86_400.0
    join_limit_s: float = 120.0
    max_pending: int = 100_000


@dataclass(slots=True)
class FeedbackTotals:
    """Since the process started, for /metrics."""

    predictions: int = 0
    joined: int = 0
    duplicates: int = 0
    expired: int = 0
    unmatched: int = 0


_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    seq INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    labels TEXT,
    at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    "row" INTEGER NOT NULL,
    row_given INTEGER NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    received_at REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    model TEXT,
    version INTEGER,
    score REAL,
    joined_seq INTEGER,
    UNIQUE (request_id, "row", kind)
) STRICT;
CREATE INDEX IF NOT EXISTS feedback_pending ON feedback (received_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS feedback_joined ON feedback (joined_seq) WHERE joined_seq IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class _Scored:
    """`score`: 1 for a wrong label and 0 for a right one; the reward itself for a reward."""

    score: float


@dataclass(frozen=True, slots=True)
class _Unmatched:
    why: str
    expected: str
    received: str


class FeedbackStore:
    """The tables and the join. Synchronous; `FeedbackDesk` is its asyncio face.

    `connection` in autocommit mode, for this store's use alone.
    """

    def __init__(self, *, connection: sqlite3.Connection, clock: Clock, limits: FeedbackLimits | None = None) -> None:
        self._db = connection
        self._clock = clock
        self._limits = limits or FeedbackLimits()
        self.totals = FeedbackTotals()
        connection.executescript(_SCHEMA)
        (self._pending,) = connection.execute("SELECT count(*) FROM feedback WHERE state = 'pending'").fetchone()
        (last,) = connection.execute("SELECT max(joined_seq) FROM feedback").fetchone()
        self._joined_seq = int(last or 0)

    @property
    def pending(self) -> int:
        """Feedback rows that wait for their prediction."""
        return int(self._pending)

    @property
    def position(self) -> int:
        """Where the joined feedback stands now; for `counts`."""
        return self._joined_seq

    def record(
        self, predictions: Sequence[Prediction], feedback: Sequence[Feedback]
    ) -> list[Receipt | FeedbackRefused]:
        """Keep a batch in one transaction, and join what fits; one result per feedback. Durable on return."""
        with self._transaction():
            self._insert_predictions(predictions)
            results = [self._take(item) for item in feedback]
            if self._pending and predictions:
                self._join_waiting(predictions)
            self._forget()
        return results

    def counts(
        self, model: str, since: int, until: int, answered_since: Mapping[int, float] | None = None
    ) -> dict[int, ArmCounts]:
        """Joined feedback of a model per version, from position `since` (excluded) to `until` (included).

        `answered_since`: only of these versions, and only feedback to what they answered since then (epoch seconds).
        """
        only, times = "", list[float]()
        if answered_since is not None:
            wanted = " OR ".join(["(p.version = ? AND p.at >= ?)"] * len(answered_since)) or "0"
            only = f"AND EXISTS (SELECT 1 FROM predictions p WHERE p.request_id = f.request_id AND ({wanted}))"
            times = [number for pair in answered_since.items() for number in pair]
        rows = self._db.execute(
            "SELECT version, sum(kind = 'label'), sum(CASE WHEN kind = 'label' THEN score ELSE 0 END), "
            "sum(kind = 'reward'), sum(CASE WHEN kind = 'reward' THEN score ELSE 0 END) FROM feedback f "
            f"WHERE joined_seq > ? AND joined_seq <= ? AND model = ? {only} GROUP BY version",
            (since, until, model, *times),
        )
        return {
            int(version): ArmCounts(
                labelled=int(labelled), wrong=int(wrong), reward_count=int(rewards), reward_sum=float(total)
            )
            for version, labelled, wrong, rewards, total in rows
        }

    def _insert_predictions(self, predictions: Sequence[Prediction]) -> None:
        # A caller that reuses a request id keeps the first answer: feedback could not tell them apart anyway.
        self._db.executemany(
            "INSERT OR IGNORE INTO predictions (request_id, model, version, labels, at) VALUES (?, ?, ?, ?, ?)",
            [
                (p.request_id, p.model, p.version, None if p.labels is None else json.dumps(p.labels), p.at)
                for p in predictions
            ],
        )
        self.totals.predictions += len(predictions)

    def _take(self, feedback: Feedback) -> Receipt | FeedbackRefused:
        prediction = self._prediction(feedback.request_id)
        fresh: list[Entry] = []
        for entry in feedback.entries:
            known = self._db.execute(
                'SELECT value FROM feedback WHERE request_id = ? AND "row" = ? AND kind = ?',
                (feedback.request_id, entry.row, entry.kind),
            ).fetchone()
            if known is None:
                fresh.append(entry)
            elif known[0] != json.dumps(entry.value):
                return FeedbackConflict(
                    f"{entry.kind} of row {entry.row} is recorded as {known[0]} already; feedback does not change",
                    field=entry.kind,
                    expected=known[0],
                    received=json.dumps(entry.value),
                )
        if not fresh:
            self.totals.duplicates += len(feedback.entries)
            return self._receipt(feedback, prediction, duplicate=True)
        if prediction is None:
            if self._pending + len(fresh) > self._limits.max_pending:
                return TooMuchPending(
                    f"{self._pending} labels and rewards wait for predictions that are not known (yet); try again "
                    f"later, and check that request_id is the x-request-id of a prediction's response",
                    field="request_id",
                    expected="the id of a recent prediction",
                    received=feedback.request_id,
                )
            self._insert_pending(feedback.request_id, fresh)
            return self._receipt(feedback, None, duplicate=False)
        scored: list[tuple[Entry, float]] = []
        for entry in fresh:
            match _score(entry, prediction):
                case _Scored(score):
                    scored.append((entry, score))
                case _Unmatched(why, expected, received):
                    return FeedbackRefused(why, field=entry.kind, expected=expected, received=received)
        for entry, score in scored:
            self._insert_joined(prediction, entry, score)
        return self._receipt(feedback, prediction, duplicate=False)

    def _receipt(self, feedback: Feedback, prediction: Prediction | None, *, duplicate: bool) -> Receipt:
        return Receipt(
            request_id=feedback.request_id,
            state=ReceiptState.PENDING if prediction is None else ReceiptState.JOINED,
            duplicate=duplicate,
            rows=len(feedback.entries),
            model=prediction.model if prediction else None,
            version=prediction.version if prediction else None,
        )

    def _prediction(self, request_id: str) -> Prediction | None:
        row = self._db.execute(
            "SELECT request_id, model, version, labels, at FROM predictions WHERE request_id = ?", (request_id,)
        ).fetchone()
        return None if row is None else _prediction(row)

    def _insert_pending(self, request_id: str, entries: Sequence[Entry]) -> None:
        now = self._clock.now()
        self._db.executemany(
            'INSERT INTO feedback (request_id, "row", row_given, kind, value, received_at, state) '
            "VALUES (?, ?, ?, ?, ?, ?, 'pending')",
            [(request_id, e.row, e.row_given, e.kind, json.dumps(e.value), now) for e in entries],
        )
        self._pending += len(entries)

    def _insert_joined(self, prediction: Prediction, entry: Entry, score: float) -> None:
        self._db.execute(
            'INSERT INTO feedback (request_id, "row", row_given, kind, value, received_at, state, model, version, '
            "score, joined_seq) VALUES (?, ?, ?, ?, ?, ?, 'joined', ?, ?, ?, ?)",
            (
                prediction.request_id,
                entry.row,
                entry.row_given,
                entry.kind,
                json.dumps(entry.value),
                self._clock.now(),
                prediction.model,
                prediction.version,
                score,
                self._next_position(),
            ),
        )

    def _join_waiting(self, predictions: Sequence[Prediction]) -> None:
        """Join the feedback that came before these predictions."""
        for arrived in predictions:
            waiting = self._db.execute(
                "SELECT id, \"row\", row_given, kind, value FROM feedback WHERE request_id = ? AND state = 'pending'",
                (arrived.request_id,),
            ).fetchall()
            for identity, row, row_given, kind, value in waiting:
                prediction = self._prediction(arrived.request_id)
                assert prediction is not None, "it was inserted in this transaction"
                self._pending -= 1
                match _score(Entry(row, bool(row_given), Kind(kind), json.loads(value)), prediction):
                    case _Scored(score):
                        self._db.execute(
                            "UPDATE feedback SET state = 'joined', model = ?, version = ?, score = ?, joined_seq = ? "
                            "WHERE id = ?",
                            (prediction.model, prediction.version, score, self._next_position(), identity),
                        )
                    case _Unmatched(why):
                        self.totals.unmatched += 1
                        self._db.execute(
                            "UPDATE feedback SET state = 'unmatched', reason = ?, model = ?, version = ? WHERE id = ?",
                            (why, prediction.model, prediction.version, identity),
                        )

    def _next_position(self) -> int:
        self._joined_seq += 1
        self.totals.joined += 1
        return self._joined_seq

    def _forget(self) -> None:
        now = self._clock.now()
        expired = self._db.execute(
            "UPDATE feedback SET state = 'expired', reason = 'no prediction of this id was seen' "
            "WHERE state = 'pending' AND received_at < ?",
            (now - self._limits.join_limit_s,),
        ).rowcount
        self._pending -= expired
        self.totals.expired += expired
        self._db.execute(
            "DELETE FROM predictions WHERE seq <= (SELECT max(seq) FROM predictions) - ?",
            (self._limits.max_predictions,),
        )
        # In order of arrival, so each statement reads little more than the rows that it deletes.
        horizon = now - self._limits.retain_s
        for table, key, column in (("predictions", "seq", "at"), ("feedback", "id", "received_at")):
            self._db.execute(
                f"DELETE FROM {table} WHERE {key} < coalesce("
                f"(SELECT {key} FROM {table} WHERE {column} >= ? ORDER BY {key} LIMIT 1), 0)",
                (horizon,),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        pending, position = self._pending, self._joined_seq
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            self._pending, self._joined_seq = pending, position
            raise
        self._db.execute("COMMIT")


def _score(entry: Entry, prediction: Prediction) -> _Scored | _Unmatched:
    if entry.kind is Kind.REWARD:
        return _Scored(float(entry.value))
    labels = prediction.labels
    what = f"{prediction.model} version {prediction.version}"
    if labels is None:
        return _Unmatched(
            f"{what} gave no label for this request that a true label could be compared with; send a reward instead",
            "reward",
            "label",
        )
    if not entry.row_given and len(labels) != 1:
        return _Unmatched(
            f"the request had {len(labels)} rows: send a list of {len(labels)} labels, or say which row",
            f"{len(labels)} labels, or a row",
            "1 label",
        )
    if entry.row >= len(labels):
        return _Unmatched(f"the request had {len(labels)} rows", f"rows 0 to {len(labels) - 1}", f"row {entry.row}")
    return _Scored(0.0 if same_label(labels[entry.row], entry.value) else 1.0)


def _prediction(row: tuple[str, str, int, str | None, float]) -> Prediction:
    request_id, model, version, labels, at = row
    return Prediction(request_id, model, version, None if labels is None else tuple(json.loads(labels)), at)
