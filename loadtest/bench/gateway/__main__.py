"""Command line of the bench: `python -m loadtest.bench.gateway`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from gateway.stack.envoy import EnvoyUnavailable
from loadtest.bench.gateway.calls import LARGE, SMALL, WrongAnswer
from loadtest.bench.gateway.cases import cases
from loadtest.bench.gateway.cpu import NoAccounting
from loadtest.bench.gateway.fresh import measure_fresh
from loadtest.bench.gateway.fresh import section as fresh_section
from loadtest.bench.gateway.fronts import running
from loadtest.bench.gateway.live import measure_live
from loadtest.bench.gateway.live import section as live_section
from loadtest.bench.gateway.load import LoadFailed, ToolMissing, require_tools
from loadtest.bench.gateway.measure import measure
from loadtest.bench.gateway.report import Setting, page
from loadtest.bench.gateway.scale import measure_scale
from loadtest.bench.gateway.scale import section as scale_section
from loadtest.demo.children import ChildFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="turns of each case, of which the best counts (12)")
    parser.add_argument("--requests", type=int, default=6_000, help="requests of a turn with small bodies (6000)")
    parser.add_argument(
        "--only", default="", help="only cases whose name contains this, and what they are compared with"
    )
    parser.add_argument("--envoys", type=int, default=50, help="freshly started Envoys that are compared (50; 0: none)")
    parser.add_argument("--models", type=int, default=10_000, help="models of the scale section (10000; 0: none)")
    parser.add_argument(
        "--live", type=int, default=20, help="models that are loaded into a running Triton (20; 0: none)"
    )
    parser.add_argument("--write", type=Path, help="write the page to this file, such as docs/benchmarks/gateway.md")
    options = parser.parse_args()
    try:
        return bench(options)
    except (ToolMissing, EnvoyUnavailable, NoAccounting, ChildFailed, LoadFailed, WrongAnswer) as error:
        print(f"bench-gateway: {error}", file=sys.stderr)
        return 2


def bench(options: argparse.Namespace) -> int:
    """Measure, print and perhaps write the page: 0, or 1 when a request failed."""
    require_tools()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ToolMissing("this bench needs two cores: one for Envoy, one for the load and the server behind it")
    envoy_cpu, load_cpu = cores[:2]
    every = cases(options.requests)
    chosen = [case for case in every if options.only in case.name]
    needed = {case.against for case in chosen} | {case.name for case in chosen}
    setting = Setting.now(rounds=options.rounds, command=" ".join(["python -m loadtest.bench.gateway", *sys.argv[1:]]))
    with (
        tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder,
        running(Path(folder), (SMALL, LARGE), envoy_cpu=envoy_cpu, load_cpu=load_cpu) as fronts,
    ):
        measured = measure(
            [case for case in every if case.name in needed],
            fronts,
            Path(folder),
            rounds=options.rounds,
            load_cpu=load_cpu,
            progress=say,
        )
    failed = sum(one.failed for one in measured)
    sections = []
    if options.envoys:
        fresh = measure_fresh(options.envoys, envoy_cpu=envoy_cpu, load_cpu=load_cpu, progress=say)
        failed += fresh.failed
        sections.append(fresh_section(fresh))
    if options.models:
        scale = measure_scale(models=options.models, envoy_cpu=envoy_cpu, load_cpu=load_cpu, progress=say)
        failed += scale.wrong_version
        sections.append(scale_section(scale))
    if options.live:
        with tempfile.TemporaryDirectory(prefix="bench-live-") as folder:
            sections.append(live_section(measure_live(Path(folder), models=options.live, progress=say)))
    text = page(measured, setting, sections)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")
    return 1 if failed else 0


def say(line: str) -> None:
    """Progress, apart from the page."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
