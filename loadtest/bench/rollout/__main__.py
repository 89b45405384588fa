"""Command line of the bench: `python -m loadtest.bench.rollout --runs 200 --cells quick`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

from rich.console import Console

from loadtest.bench.rollout.cells import SETS, Cell
from loadtest.bench.rollout.report import cells_table, judged_targets, targets_table
from loadtest.bench.rollout.simulate import Outcome, simulate_cell


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.rollout", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="rollouts per cell (200)")
    parser.add_argument("--cells", choices=sorted(SETS), default="quick", help="which cells (quick)")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    parser.add_argument("--noise", default="", help="only this noise")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--seed", type=int, default=0, help="first seed; runs take the following ones (0)")
    parser.add_argument("--json", default="", help="write every outcome to this file, one JSON object per line")
    options = parser.parse_args()

    cells = [c for c in SETS[options.cells] if options.only in c.scenario and options.noise in ("", c.noise)]
    jobs = [(cell, options.seed + run) for cell in cells for run in range(options.runs)]
    results: dict[Cell, list[Outcome]] = defaultdict(list)
    console, started = Console(width=150), time.monotonic()
    # An executor, not a Pool: a worker that is killed ends the run with an error instead of a wait for ever.
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for done, (cell, outcome) in enumerate(pool.map(simulate_cell, jobs, chunksize=10), start=1):
            results[cell].append(outcome)
            if done % 500 == 0:
                print(f"{done:,} of {len(jobs):,} rollouts, {time.monotonic() - started:.0f} s", file=sys.stderr)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(o)) + "\n" for outcomes in results.values() for o in outcomes)
    console.print(cells_table(results))
    console.print(targets_table(results))
    words = [word for _, _, word in judged_targets(results)]
    console.print(
        f"{len(words)} figures: {words.count('excellent')} excellent, {words.count('ok')} within the must, "
        f"{words.count('MISSED')} missed"
    )
    return 1 if "MISSED" in words else 0


if __name__ == "__main__":
    raise SystemExit(main())
