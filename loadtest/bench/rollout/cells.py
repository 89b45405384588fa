"""Which rollouts are simulated, in which order, and what must hold of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RATES = (2.0, 20.0, 200.0, 2000.0)
REALISTIC, PER_VERSION = "realistic", "per version"
HEALTHY_RUNS, GROSS_RUNS, BAD_RUNS = 1000, 1000, 400
GROSS = ("crash", "errors 50 %", "errors 5 %")
"""What no rollout may miss, in as many runs as healthy versions have."""


@dataclass(frozen=True, slots=True)
class Cell:
    scenario: str
    noise: str
    rps: float


class Figure(StrEnum):
    """What is measured of a cell's runs."""

    FALSE_ROLLBACK = "false rollbacks"
    MISSED = "missed"
    REQUESTS = "canary requests before rollback, median"
    SECONDS = "seconds to rollback, median"
    BAD = "bad responses before rollback, mean"
    MINUTES = "minutes to 100 %, median"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of one cell, at most `must`; `excellent` is the ambition."""

    figure: Figure
    cell: Cell
    must: float
    excellent: float


def _targets() -> tuple[Target, ...]:
    targets = []
    for noise, must, excellent in ((REALISTIC, 0.01, 0.005), (PER_VERSION, 0.05, 0.01)):
        for scenario in ("identical", "better", "outage of both"):
            targets += [Target(Figure.FALSE_ROLLBACK, Cell(scenario, noise, rps), must, excellent) for rps in RATES]
    missed = [("crash", 2.0, 0.0), ("errors 50 %", 2.0, 0.0), ("errors 5 %", 2.0, 0.0), ("errors 1 %", 20.0, 0.0)]
    missed += [("errors 0.5 %", 200.0, 0.0)]
    missed += [(name, 20.0, 0.02) for name in ("p99 +25 %", "p50 +10 %", "accuracy 85 %")]
    for scenario, least, at_least in missed:
        for rps in (rate for rate in RATES if rate >= least):
            must = at_least if rps < 200 else 0.0
            targets.append(Target(Figure.MISSED, Cell(scenario, REALISTIC, rps), must, must / 4))
    for scenario, must, excellent in (
        ("errors 5 %", 200, 100),
        ("errors 1 %", 1300, 850),
        ("errors 0.5 %", 5500, 3500),
    ):
        targets.append(Target(Figure.REQUESTS, Cell(scenario, REALISTIC, 20.0), must, excellent))
    for scenario in ("errors 50 %", "crash"):
        for rps, must, excellent in zip(RATES, (60, 20, 10, 10), (30, 10, 2, 2), strict=True):
            targets.append(Target(Figure.SECONDS, Cell(scenario, REALISTIC, rps), must, excellent))
    for rps, must, excellent in zip(RATES, (10, 10, 20, 110), (6, 6, 8, 15), strict=True):
        targets.append(Target(Figure.BAD, Cell("errors 5 %", REALISTIC, rps), must, excellent))
    for rps, must, excellent in zip(RATES, (60, 35, 20, 8), (45, 20, 8, 5), strict=True):
        targets.append(Target(Figure.MINUTES, Cell("identical", REALISTIC, rps), must, excellent))
    return tuple(targets)


TARGETS = _targets()

_JUDGED = tuple(dict.fromkeys(t.cell for t in sorted(TARGETS, key=lambda t: t.figure is Figure.FALSE_ROLLBACK)))
"""What must be caught first: those rollouts are short."""
_OTHER_NOISES = (
    "none",
    "shared",
    "clustered",
    "bursts",
    "diurnal",
    "warm-up",
    "gc",
    "sticky",
    "label delay",
    "label loss",
)
_MORE = (
    *(Cell(scenario, REALISTIC, 20.0) for scenario in ("drift only", "accuracy 90 %", "p99 +100 %")),
    Cell("drift only", REALISTIC, 200.0),
    Cell("accuracy 90 %", REALISTIC, 200.0),
    Cell("p99 +100 %", REALISTIC, 200.0),
    *(Cell("identical", noise, rps) for noise in _OTHER_NOISES for rps in (20.0, 200.0)),
)

SETS: dict[str, tuple[Cell, ...]] = {
    "quick": tuple(cell for cell in _JUDGED if cell.rps in (20.0, 200.0)),
    "full": (*_JUDGED, *_MORE),
}
"""Cells in the order of their weight: a run that is stopped has what matters most."""
