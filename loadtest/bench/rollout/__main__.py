"""Command line of the bench: `python -m loadtest.bench.rollout --cells quick --runs 0.1`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from loadtest.bench.rollout.cells import BAD_RUNS, GROSS, GROSS_RUNS, HEALTHY_RUNS, SETS, Cell
from loadtest.bench.rollout.page import page, verdict_line
from loadtest.bench.rollout.scenario import SCENARIOS
from loadtest.bench.rollout.simulate import (
    BATCH,
    HELD,
    HORIZON_S,
    NULL_S,
    NULLS,
    RIVALS,
    RULES,
    TOLERANT,
    TOLERANTS,
    simulate,
)
from loadtest.bench.rollout.store import Store


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.rollout", description=__doc__)
    parser.add_argument("--cells", choices=sorted(SETS), default="quick", help="which cells (quick)")
    parser.add_argument("--runs", type=float, default=1.0, help="part of the full number of rollouts per cell (1.0)")
    parser.add_argument("--rivals", type=float, default=0.25, help="part of it for the other systems' rules (0.25)")
    parser.add_argument("--only", default="", help="only cells whose 'scenario/noise' contains this")
    parser.add_argument("--outcomes", type=Path, default=Path("build/bench-judge.jsonl"), help="kept and resumed here")
    parser.add_argument("--minutes", type=float, default=240.0, help="stop after this long, with what there is (240)")
    parser.add_argument("--print", action="store_true", help="simulate nothing: the page of the outcomes there are")
    parser.add_argument("--write", type=Path, help="write the page to this file too")
    options = parser.parse_args()

    store, started = Store(options.outcomes), time.monotonic()
    for rule, cell, batch, runs in () if options.print else plan(options.cells, options.runs, options.rivals):
        late = time.monotonic() - started > 60 * options.minutes
        if late or store.has(rule, cell, batch) or options.only not in f"{cell.scenario}/{cell.noise}":
            continue
        begun = time.monotonic()
        horizon_s = NULL_S if rule == HELD else HORIZON_S
        store.add(rule, cell, batch, simulate(cell, batch, runs, rule, horizon_s))
        print(f"{rule}: {cell}, {runs} rollouts, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    text = page(store.outcomes)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    return 1 if "MISSED" in verdict_line(store.outcomes) else 0


def plan(cells: str, part: float, rivals: float) -> Iterator[tuple[str, Cell, int, int]]:
    """(rule, cell, batch, rollouts) in the order of their weight: a bench that is stopped has some of every cell."""
    for rule in RULES:
        chosen = {HELD: NULLS, TOLERANT: TOLERANTS}.get(rule, SETS[cells])
        whole = part * (rivals if rule in RIVALS else 1.0)
        wanted = [(cell, batch, runs) for cell in chosen for batch, runs in batches(cell, whole)]
        for cell, batch, runs in sorted(wanted, key=lambda job: job[1]):
            yield rule, cell, batch, runs


def batches(cell: Cell, part: float) -> list[tuple[int, int]]:
    """(number, rollouts) of each batch of a cell."""
    whole = GROSS_RUNS if cell.scenario in GROSS else BAD_RUNS if SCENARIOS[cell.scenario].bad else HEALTHY_RUNS
    runs = max(1, round(whole * part))
    return [(number, min(BATCH, runs - number * BATCH)) for number in range(-(-runs // BATCH))]


if __name__ == "__main__":
    raise SystemExit(main())
