"""The journal: durable, in order, append-only, whatever isolation level its owner chose."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rollout.journal import Journal, JournalError, Kind, Record
from rollout.machine import Progress, State


@pytest.fixture(params=["", None, "IMMEDIATE"], ids=["implicit", "autocommit", "immediate"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "store.db", isolation_level=request.param)


def opened(journal: Journal, model: str = "digits") -> int:
    return journal.open_rollout(model=model, candidate=2, stable=1, spec={"a": 1}, at=10.0)


def transition(rollout_id: int, state: State, at: float, **more: object) -> Record:
    progress = Progress(state=state, undoable=bool(more.get("undoable")))
    return Record(rollout_id, at, Kind.TRANSITION, {"progress": progress.to_json(), "stable": 1})


def test_what_was_appended_is_there_for_another_connection_at_once(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    first = opened(journal)
    journal.append([Record(first, 11.0, Kind.NOTE, {"text": "a"}), Record(first, 12.0, Kind.NOTE, {"text": "b"})])
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    with sqlite3.connect(path) as other:
        read = Journal(other).read(first)
    other.close()
    assert [(r.at, r.body["text"]) for r in read] == [(11.0, "a"), (12.0, "b")]
    assert read[0].seq < read[1].seq


def test_an_append_is_all_or_nothing(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    first = opened(journal)
    good = Record(first, 11.0, Kind.NOTE, {"text": "a"})
    with pytest.raises(KeyError):
        journal.append([good, Record(first, 12.0, Kind.TRANSITION, {"stable": 1})])
    assert journal.read(first) == []
    assert not connection.in_transaction


def test_records_cannot_be_changed_or_removed(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    journal.append([Record(opened(journal), 11.0, Kind.NOTE, {"text": "a"})])
    for statement in ("UPDATE journal SET body = '{}'", "DELETE FROM journal"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)


def test_active_are_those_that_are_not_settled(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    ids = [opened(journal) for _ in range(4)]
    journal.append([transition(ids[0], State.ROLLED_BACK, 20.0)])
    journal.append([transition(ids[1], State.PROMOTED, 21.0, undoable=True)])
    journal.append([transition(ids[2], State.STEP, 22.0)])
    assert [(row.id, row.state) for row in journal.active()] == [
        (ids[1], State.PROMOTED),
        (ids[2], State.STEP),
        (ids[3], State.PENDING),
    ]
    assert [row.id for row in journal.history("digits")] == ids[::-1]
    assert journal.history("other") == []


def test_the_last_decision_is_by_the_time_it_was_decided(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    first, second = opened(journal), opened(journal)
    assert journal.last_decided("digits") is None
    journal.append([transition(first, State.PROMOTED, 20.0, undoable=True)])
    journal.append([transition(second, State.ABORTED, 30.0)])
    # The window of the first one closes later; it was decided before all the same.
    journal.append([transition(first, State.PROMOTED, 40.0)])
    decided = journal.last_decided("digits")
    assert decided is not None
    assert (decided.id, decided.ended_at) == (second, 30.0)
    journal.append([transition(first, State.ROLLED_BACK, 50.0)])
    decided = journal.last_decided("digits")
    assert decided is not None
    assert (decided.id, decided.ended_at) == (first, 50.0)


def test_a_resume_reads_from_the_last_snapshot_on_and_the_last_transition(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    first = opened(journal)
    tick = Record(first, 1.0, Kind.TICK, {})
    checkpoint = Record(first, 1.0, Kind.CHECKPOINT, {})
    journal.append([transition(first, State.LOADING, 1.0), transition(first, State.STEP, 1.0), tick, tick])
    assert [r.kind for r in journal.since_snapshot(first)] == [Kind.TRANSITION, Kind.TICK, Kind.TICK]
    journal.append([checkpoint, tick])
    assert [r.kind for r in journal.since_snapshot(first)] == [Kind.TRANSITION, Kind.CHECKPOINT, Kind.TICK]


def test_a_resume_reads_what_the_rollout_was_calibrated_on_however_long_ago(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    first, other = opened(journal), opened(journal, "iris")
    for rollout in (first, other):
        journal.append([Record(rollout, 1.0, Kind.CALIBRATION, {"of": rollout}), transition(rollout, State.STEP, 1.0)])
    checkpoint = Record(first, 2.0, Kind.CHECKPOINT, {})
    journal.append([Record(first, 1.5, Kind.TICK, {}), checkpoint])
    found = journal.since_snapshot(first)
    assert [r.kind for r in found] == [Kind.CALIBRATION, Kind.TRANSITION, Kind.CHECKPOINT]
    assert found[0].body == {"of": first}


def test_a_closed_store_is_told_as_a_journal_error(connection: sqlite3.Connection) -> None:
    journal = Journal(connection)
    first = opened(journal)
    connection.close()
    with pytest.raises(JournalError, match="cannot write the rollout journal"):
        journal.append([Record(first, 1.0, Kind.NOTE, {})])
    with pytest.raises(JournalError, match="cannot read the rollout journal"):
        journal.read(first)
