"""The registry's tables, and how those of an earlier Penstock become today's.

Used by `gateway.registry` when it opens a database. `user_version` says which form a database has: 0 is the form of
the first release (one routing state per model) or an empty file.
"""

from __future__ import annotations

import sqlite3

from gateway.database import transaction

CURRENT = 1


class NewerDatabase(Exception):
    """The data directory was written by a later Penstock."""

    def __init__(self, found: int) -> None:
        super().__init__(
            f"the database has form {found}, this Penstock knows up to {CURRENT}: "
            "it was written by a later version. Start that one, or use another --data-dir"
        )


_TABLES = """
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS lines (
    model TEXT NOT NULL REFERENCES models(name),
    major INTEGER NOT NULL,
    stable INTEGER,
    candidate INTEGER,
    previous INTEGER,
    stable_since REAL,
    PRIMARY KEY (model, major)
) STRICT;
CREATE TABLE IF NOT EXISTS versions (
    model TEXT NOT NULL REFERENCES models(name),
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    signature TEXT NOT NULL,
    contract TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at REAL NOT NULL,
    served_name TEXT,
    served_version TEXT,
    PRIMARY KEY (model, number),
    UNIQUE (model, digest)
) STRICT;
CREATE TABLE IF NOT EXISTS contracts (
    model TEXT NOT NULL REFERENCES models(name),
    major INTEGER NOT NULL,
    contract TEXT NOT NULL,
    locked_at REAL NOT NULL,
    PRIMARY KEY (model, major)
) STRICT;
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring them to today's form; all or nothing. Raises NewerDatabase."""
    with transaction(connection):
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found > CURRENT:
            raise NewerDatabase(found)
        first_release = found == 0 and _has(connection, "models")
        # One by one: `executescript` would commit the transaction first.
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        if first_release:
            _lines_of_their_own(connection)
        connection.execute(f"PRAGMA user_version = {CURRENT}")


def _lines_of_their_own(connection: sqlite3.Connection) -> None:
    """Form 0 -> 1: routing state moves from `models` to `lines`, and versions may be the server's own."""
    connection.execute(
        "INSERT INTO lines (model, major, stable, candidate, previous, stable_since) "
        "SELECT name, 1, stable, candidate, previous, stable_since FROM models"
    )
    for column in ("stable", "candidate", "previous", "stable_since"):
        connection.execute(f"ALTER TABLE models DROP COLUMN {column}")
    for column in ("served_name", "served_version"):
        connection.execute(f"ALTER TABLE versions ADD COLUMN {column} TEXT")


def _has(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    return found is not None
