"""Command line of the bench: `python -m loadtest.bench.capacity`."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

from gateway.stack.envoy import EnvoyUnavailable
from loadtest.bench.capacity.charts import cost_chart, fleet_chart
from loadtest.bench.capacity.connections import measure_connections
from loadtest.bench.capacity.fit import fit
from loadtest.bench.capacity.fleet import measure_fleets
from loadtest.bench.capacity.ladder import FRONT, Protocol, models, rungs
from loadtest.bench.capacity.report import Costs, page
from loadtest.bench.gateway.calls import WrongAnswer
from loadtest.bench.gateway.cpu import NoAccounting, peak_bytes, resident_bytes
from loadtest.bench.gateway.fronts import running
from loadtest.bench.gateway.load import LoadFailed, ToolMissing, require_tools
from loadtest.bench.gateway.measure import measure
from loadtest.demo.children import ChildFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.capacity", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="turns of each point, of which the best counts (6)")
    parser.add_argument("--requests", type=int, default=2_000, help="requests of a turn with small bodies (2000)")
    parser.add_argument("--connections", type=int, default=2_000, help="idle connections of each protocol (2000)")
    parser.add_argument(
        "--envoys",
        type=int,
        nargs="*",
        default=[1, 100, 300, 1_000],
        help="sizes of the simulated fleet, ascending from 1 (1 100 300 1000; none: no fleet)",
    )
    parser.add_argument("--models", type=int, default=1_000, help="models of the fleet's control plane (1000)")
    parser.add_argument("--heartbeats", type=int, default=10, help="seconds with a renewal, per size of the fleet (10)")
    parser.add_argument(
        "--write", type=Path, help="write the page here, such as docs/benchmarks/capacity.md, and charts"
    )
    options = parser.parse_args()
    try:
        return bench(options)
    except (ToolMissing, EnvoyUnavailable, NoAccounting, ChildFailed, LoadFailed, WrongAnswer) as error:
        print(f"bench-capacity: {error}", file=sys.stderr)
        return 2


def bench(options: argparse.Namespace) -> int:
    """Measure, print and perhaps write the page with its charts: 0, or 1 when a request failed."""
    require_tools()
    _open_files(2 * max(options.connections, *options.envoys, 0) + 200)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ToolMissing("this bench needs two cores: one for Envoy, one for the load and the server behind it")
    envoy_cpu, load_cpu = cores[:2]
    costs = _costs(options, envoy_cpu, load_cpu)
    connections = measure_connections(options.connections, envoy_cpu=envoy_cpu, load_cpu=load_cpu, progress=say)
    fleets = None
    if options.envoys:
        fleets = measure_fleets(
            options.envoys, models=options.models, heartbeats=options.heartbeats, repeats=5, progress=say
        )
    fits = {protocol: fit(costs.points(protocol)) for protocol in Protocol}
    name = options.write.stem if options.write else "capacity"
    command = " ".join(["python -m loadtest.bench.capacity", *sys.argv[1:]])
    text = page(costs, fits, connections, fleets, command=command, charts=name)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")
        by_protocol = {protocol: (fits[protocol], costs.points(protocol)) for protocol in Protocol}
        cost_chart(by_protocol, options.write.with_name(f"{name}-cost.svg"))
        if fleets is not None:
            fleet_chart(fleets.sizes, options.write.with_name(f"{name}-fleet.svg"))
    return 1 if costs.failed else 0


def _costs(options: argparse.Namespace, envoy_cpu: int, load_cpu: int) -> Costs:
    every = models()
    ladder = rungs(every, options.requests)
    with (
        tempfile.TemporaryDirectory(prefix="bench-capacity-") as folder,
        running(Path(folder), every, envoy_cpu=envoy_cpu, load_cpu=load_cpu, names=(FRONT,)) as fronts,
    ):
        idle = resident_bytes(fronts[FRONT].pid)
        cases = [rung.case for rung in ladder]
        measured = measure(cases, fronts, Path(folder), rounds=options.rounds, load_cpu=load_cpu, progress=say)
        return Costs(list(zip(ladder, measured, strict=True)), idle, peak_bytes(fronts[FRONT].pid))


def _open_files(wanted: int) -> None:
    """Let this process and its children open as many sockets as the bench needs. Raises ToolMissing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ToolMissing(f"this bench opens {wanted} files, and the limit is {hard}: ulimit -n, or fewer connections")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def say(line: str) -> None:
    """Progress, apart from the page."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
