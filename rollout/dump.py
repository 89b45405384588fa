"""One rollout's journal as a file of its own: JSON lines, the rollout first, then every record in order.

The management API gives it out; `penstock rollout replay`, `report` and `plan` read it, with or without a server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rollout.journal import Kind, Record, RolloutRow
from rollout.machine import State

FORMAT = 1


class DumpError(ValueError):
    """The text is not a rollout's journal; the message says at which line and what was expected."""


def dump(row: RolloutRow, records: Iterable[Record]) -> Iterator[str]:
    """Lines, each ended."""
    yield _line({"format": FORMAT, "rollout": asdict(row)})
    for record in records:
        yield _line({"seq": record.seq, "at": record.at, "kind": record.kind.value, "body": record.body})


def parse(lines: Iterable[str]) -> tuple[RolloutRow, list[Record]]:
    """The rollout and its records. Raises `DumpError`."""
    row: RolloutRow | None = None
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
            if row is None:
                row = _row(value)
            else:
                records.append(Record(row.id, value["at"], Kind(value["kind"]), value["body"], value["seq"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            expected = "a rollout's journal of format 1" if row is None else "a journal record"
            raise DumpError(f"line {number}: expected {expected}, received {line[:60]!r} ({error!r})") from error
    if row is None:
        raise DumpError("line 1: expected a rollout's journal of format 1, received an empty file")
    return row, records


def _row(value: Mapping[str, Any]) -> RolloutRow:
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']}")
    known = value["rollout"]
    return RolloutRow(**{**known, "state": State(known["state"])})


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"
