"""Mirrored requests whose true label is known: which version was right, counted once, however late the label is.

Lives in the feedback's database, on its connection and in its thread (`FeedbackDesk.ask`): what both versions answered
is kept there by request id, and meets the labels that feedback has joined.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.evidence.labels import same_label
from rollout.evidence.mirror.wire import Answered, LabelNews
from rollout.ports import Clock

MAX_PAIRS = 1_000_000
"""The newest this many can still get a label; as many as predictions (`FeedbackLimits`)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pairs (
    seq INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    pair TEXT NOT NULL,
    stable TEXT NOT NULL,
    candidate TEXT NOT NULL,
    at REAL NOT NULL,
    UNIQUE (request_id, pair)
) STRICT;
"""

_NEW = """
SELECT f.request_id, f."row", f.value, p.pair, p.stable, p.candidate FROM feedback f JOIN pairs p
    ON p.request_id = f.request_id WHERE f.joined_seq > :joined AND f.kind = 'label' AND f.state = 'joined'
UNION
SELECT f.request_id, f."row", f.value, p.pair, p.stable, p.candidate FROM pairs p JOIN feedback f
    ON p.request_id = f.request_id WHERE p.seq > :pairs AND f.kind = 'label' AND f.state = 'joined'
"""
"""A label and a pair come up once: when the later of the two is new."""


@dataclass(slots=True)
class PairedLabels:
    """True labels of one pair: all, and those for which exactly one version was wrong."""

    labelled: int = 0
    candidate_only_wrong: int = 0
    stable_only_wrong: int = 0


class PairedLabelStore:
    """`connection` is the feedback store's, whose tables must be there already."""

    def __init__(self, *, connection: sqlite3.Connection, clock: Clock) -> None:
        self._db = connection
        self._clock = clock
        connection.executescript(_SCHEMA)
        self._joined, self._pairs = self._ends()

    def advance(self, answered: Sequence[Answered]) -> tuple[Mapping[str, PairedLabels], tuple[LabelNews, ...]]:
        """Keep what both versions answered; the labels that are new for any pair since the last call."""
        now = self._clock.now()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT OR IGNORE INTO pairs (request_id, pair, stable, candidate, at) VALUES (?, ?, ?, ?, ?)",
                [(a.request_id, a.pair, json.dumps(a.stable), json.dumps(a.candidate), now) for a in answered],
            )
            self._db.execute(
                "DELETE FROM pairs WHERE seq <= (SELECT max(seq) FROM pairs) - ?",
                (MAX_PAIRS,),
            )
            rows = self._db.execute(_NEW, {"joined": self._joined, "pairs": self._pairs}).fetchall()
            ends = self._ends()
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        self._joined, self._pairs = ends
        counts: defaultdict[str, PairedLabels] = defaultdict(PairedLabels)
        news = set()
        for request_id, row, value, pair, stable, candidate in rows:
            label = json.loads(value)
            news.add(LabelNews(request_id, int(row), label))
            answers = json.loads(stable), json.loads(candidate)
            if row >= min(map(len, answers)):
                continue
            stable_right, candidate_right = (same_label(labels[row], label) for labels in answers)
            counts[pair].labelled += 1
            counts[pair].candidate_only_wrong += stable_right and not candidate_right
            counts[pair].stable_only_wrong += candidate_right and not stable_right
        return counts, tuple(sorted(news, key=lambda one: (one.request_id, one.row)))

    def _ends(self) -> tuple[int, int]:
        (joined,) = self._db.execute("SELECT coalesce(max(joined_seq), 0) FROM feedback").fetchone()
        (pairs,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM pairs").fetchone()
        return int(joined), int(pairs)
