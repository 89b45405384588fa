"""SQLite as the control plane uses it: one file, durable commits, one way to write a transaction.

Used by the registry and the feedback store; the rollout journal brings its own statements and may share the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_database(path: Path) -> sqlite3.Connection:
    """Open (or create) the store at `path`.

    WAL lets readers work beside a writer; `synchronous=FULL` makes a commit survive a power cut, which is what an
    acknowledged deploy or label promises. `busy_timeout` covers another connection's short transaction.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing: commit at the end of the block, roll back on any exception.

    The write lock is taken at once (BEGIN IMMEDIATE), so that what the block reads stays true until it commits.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
