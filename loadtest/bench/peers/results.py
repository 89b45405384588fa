"""What was measured of each peer, and the file that keeps it while the bench goes on.

`__main__` adds a peer as soon as it is measured, so that nothing that happens later loses it, and takes up a run that
was broken off; `report` reads the results.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.bench.gateway.calls import Wire
from loadtest.bench.peers.measure import Figures, Latency
from loadtest.bench.peers.work import Form, Size, form_words


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request; `figures` None when it did not work, and why."""

    form: Form
    wire: Wire
    size: Size
    figures: Figures | None
    trouble: str = ""

    @property
    def words(self) -> str:
        return form_words(self.form, self.wire)


@dataclass(frozen=True, slots=True)
class Result:
    """One peer. `memory_bytes` is after all its load; `trouble` when it was not measured at all.

    `measured_at` is when that began, UTC, to the minute.
    """

    name: str
    version: str
    runs_model: bool
    ready_s: float = 0.0
    memory_bytes: int = 0
    rows: tuple[Row, ...] = ()
    trouble: str = ""
    measured_at: str = ""

    @property
    def whole(self) -> bool:
        """Whether every kind of request was measured and answered."""
        return not self.trouble and all(row.figures and not row.figures.failed for row in self.rows)


@dataclass(frozen=True, slots=True)
class Store:
    """JSON lines, one per peer, with what was measured (`code`: a commit): figures of other code are not taken over."""

    path: Path
    code: str

    def add(self, result: Result) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"code": self.code, **asdict(result)}) + "\n")

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def read(self) -> dict[str, Result]:
        """The peers that were measured whole, by name. A line that was cut off counts for nothing."""
        if not self.path.is_file():
            return {}
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if told.pop("code") == self.code and (result := _result(told)).whole:
                found[result.name] = result
        return found


def _result(told: dict[str, Any]) -> Result:
    return Result(**{**told, "rows": tuple(_row(row) for row in told["rows"])})


def _row(told: dict[str, Any]) -> Row:
    figures = told["figures"]
    if figures is not None:
        latencies = {name: Latency(**figures[name]) for name in ("alone", "together")}
        figures = Figures(**{**figures, **latencies})
    return Row(Form(told["form"]), Wire(told["wire"]), Size(told["size"]), figures, told["trouble"])
