"""Entries of the access log as tests want them, and a history that they go to."""

from __future__ import annotations

import sqlite3

from rollout.evidence.history import StableHistory
from rollout.evidence.history_store import HistoryStore
from rollout.evidence.logged import LoggedRequest
from rollout.ports import Clock, Outcome


def logged(
    caller: int,
    outcome: Outcome = Outcome.OK,
    *,
    version: int = 1,
    sticky: bool = True,
    latency_us: float | None = 4000.0,
    model: str = "digits",
) -> LoggedRequest:
    """`caller`: odd ones are in one half, even ones in the other."""
    answered = latency_us if outcome is Outcome.OK else None
    return LoggedRequest(model, version, outcome, answered, caller, sticky)


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def history_of(clock: Clock, connection: sqlite3.Connection | None = None, *, stable: int = 1) -> StableHistory:
    """The history of "digits", whose stable version this is."""
    store = HistoryStore(connection or memory())
    return StableHistory(store=store, stable=lambda: {("digits", stable): "digits"}, clock=clock)
