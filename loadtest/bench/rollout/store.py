"""Outcomes on disk, one JSON line per batch of rollouts, so that a long bench can be stopped, resumed and looked at."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

from loadtest.bench.rollout.cells import Cell
from loadtest.bench.rollout.simulate import Outcome

Key = tuple[str, Cell]
"""Rule and cell."""


class Store:
    """Append-only. A batch is (rule, cell, number): the same one gives the same outcomes, so it is run once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.outcomes: dict[Key, list[Outcome]] = defaultdict(list)
        self._done: set[tuple[str, Cell, int]] = set()
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def has(self, rule: str, cell: Cell, batch: int) -> bool:
        return (rule, cell, batch) in self._done

    def add(self, rule: str, cell: Cell, batch: int, outcomes: Sequence[Outcome]) -> None:
        line = {"rule": rule, "cell": asdict(cell), "batch": batch, "outcomes": [astuple(o) for o in outcomes]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._take(line)

    def _take(self, line: dict[str, object]) -> None:
        rule, cell = str(line["rule"]), Cell(**line["cell"])  # type: ignore[arg-type]  # as `add` wrote it
        self._done.add((rule, cell, int(str(line["batch"]))))
        self.outcomes[rule, cell] += [Outcome(*values) for values in line["outcomes"]]  # type: ignore[attr-defined]  # likewise
