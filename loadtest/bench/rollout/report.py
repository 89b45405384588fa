"""Tables of simulated rollouts with 95 % intervals, and the figures beside what they must be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median

from rich.table import Table

from loadtest.bench.rollout.cells import TARGETS, Cell, Figure, Target
from loadtest.bench.rollout.scenario import SCENARIOS
from loadtest.bench.rollout.simulate import Outcome

Results = Mapping[Cell, Sequence[Outcome]]


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """95 % interval of a share; Wilson 1927."""
    if not runs:
        return 0.0, 1.0
    z, share = 1.959964, hits / runs
    centre = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return max(0.0, centre - half), min(1.0, centre + half)


def figure_of(figure: Figure, outcomes: Sequence[Outcome]) -> float:
    """NaN when no run has it (no rollback, none at 100 %)."""
    caught = [outcome for outcome in outcomes if outcome.rolled_back]
    match figure:
        case Figure.FALSE_ROLLBACK:
            return len(caught) / len(outcomes)
        case Figure.MISSED:
            return sum(outcome.missed for outcome in outcomes) / len(outcomes)
        case Figure.REQUESTS:
            return median(outcome.canary_requests for outcome in caught) if caught else math.nan
        case Figure.SECONDS:
            return median(outcome.seconds for outcome in caught) if caught else math.nan
        case Figure.BAD:
            return fmean(outcome.canary_bad for outcome in caught) if caught else math.nan
        case Figure.MINUTES:
            # A run that never got there counts as longer than any: the median must not flatter.
            return median(math.inf if o.full_at is None else o.full_at / 60 for o in outcomes)


def cells_table(results: Results) -> Table:
    table = Table(title="Simulated rollouts", title_justify="left")
    for name in ("scenario", "noise"):
        table.add_column(name)
    for name in (
        "req/s",
        "runs",
        "rolled back %",
        "all traffic %",
        "median s",
        "canary req",
        "mean bad",
        "min to 100 %",
    ):
        table.add_column(name, justify="right")
    for cell, outcomes in results.items():
        caught = sum(outcome.rolled_back for outcome in outcomes)
        full = sum(outcome.missed for outcome in outcomes)
        bad = SCENARIOS[cell.scenario].bad
        table.add_row(
            cell.scenario,
            cell.noise,
            f"{cell.rps:g}",
            str(len(outcomes)),
            _share(caught, len(outcomes)),
            _share(full, len(outcomes)),
            _number(figure_of(Figure.SECONDS, outcomes)) if bad else "",
            _number(figure_of(Figure.REQUESTS, outcomes)) if bad else "",
            _number(figure_of(Figure.BAD, outcomes)) if bad else "",
            "" if bad else _number(figure_of(Figure.MINUTES, outcomes)),
        )
    return table


def targets_table(results: Results) -> Table:
    table = Table(title="Against what must hold", title_justify="left")
    for name in ("figure", "scenario", "noise"):
        table.add_column(name)
    for name in ("req/s", "measured", "must", "excellent", ""):
        table.add_column(name, justify="right")
    for target, value, word in judged_targets(results):
        share = target.figure in (Figure.FALSE_ROLLBACK, Figure.MISSED)
        shown = [f"{100 * x:.2g} %" if share else _number(x) for x in (value, target.must, target.excellent)]
        table.add_row(
            target.figure.value, target.cell.scenario, target.cell.noise, f"{target.cell.rps:g}", *shown, word
        )
    return table


def judged_targets(results: Results) -> Iterator[tuple[Target, float, str]]:
    """Targets whose cell was simulated, the figure, and "excellent", "ok" or "MISSED"."""
    for target in TARGETS:
        if target.cell in results:
            value = figure_of(target.figure, results[target.cell])
            word = "excellent" if value <= target.excellent else "ok" if value <= target.must else "MISSED"
            yield target, value, word


def _share(hits: int, runs: int) -> str:
    low, high = wilson(hits, runs)
    return f"{100 * hits / runs:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _number(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
