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
from loadtest.bench.gateway.envoys import running
from loadtest.bench.gateway.load import LoadFailed, ToolMissing, require_tools
from loadtest.bench.gateway.measure import measure
from loadtest.bench.gateway.report import Setting, page
from loadtest.demo.children import ChildFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="turns of each case, of which the best counts (12)")
    parser.add_argument("--requests", type=int, default=6_000, help="requests of a turn with small bodies (6000)")
    parser.add_argument(
        "--only", default="", help="only cases whose name contains this, and what they are compared with"
    )
    parser.add_argument("--write", type=Path, help="write the page to this file, such as docs/benchmarks/gateway.md")
    options = parser.parse_args()
    try:
        return bench(rounds=options.rounds, requests=options.requests, only=options.only, write=options.write)
    except (ToolMissing, EnvoyUnavailable, NoAccounting, ChildFailed, LoadFailed, WrongAnswer) as error:
        print(f"bench-gateway: {error}", file=sys.stderr)
        return 2


def bench(*, rounds: int, requests: int, only: str, write: Path | None) -> int:
    """Measure, print and perhaps write the page: 0, or 1 when a request failed."""
    require_tools()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ToolMissing("this bench needs two cores: one for Envoy, one for the load and the server behind it")
    envoy_cpu, load_cpu = cores[:2]
    chosen = [case for case in cases(requests) if only in case.name]
    needed = {case.against for case in chosen} | {case.name for case in chosen}
    chosen = [case for case in cases(requests) if case.name in needed]
    setting = Setting.now(rounds=rounds, command=" ".join(["python -m loadtest.bench.gateway", *sys.argv[1:]]))
    with (
        tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder,
        running(Path(folder), (SMALL, LARGE), envoy_cpu=envoy_cpu, load_cpu=load_cpu) as envoys,
    ):
        measured = measure(
            chosen,
            envoys,
            Path(folder),
            rounds=rounds,
            load_cpu=load_cpu,
            progress=lambda line: print(line, file=sys.stderr),
        )
    text = page(measured, setting)
    print(text)
    if write is not None:
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(text)
    return 1 if any(one.failed for one in measured) else 0


if __name__ == "__main__":
    raise SystemExit(main())
