"""Command line of the bench against peers: `python -m loadtest.bench.peers` (`make bench`)."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from gateway.stack.envoy import EnvoyUnavailable
from loadtest.bench.gateway.calls import LARGE, SMALL, WrongAnswer, call_once
from loadtest.bench.gateway.fronts import stub
from loadtest.bench.gateway.load import LoadFailed, ToolMissing, require_tools
from loadtest.bench.peers.environments import NotInstalled
from loadtest.bench.peers.measure import measure
from loadtest.bench.peers.peers import Peer, Place, Running, peers
from loadtest.bench.peers.report import Result, Row, chart, page
from loadtest.bench.peers.tree import MARK, Tree
from loadtest.bench.peers.work import Work
from loadtest.demo.children import ChildFailed

_READY_S = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.peers", description=__doc__)
    parser.add_argument("--only", default="", help="only peers whose name contains one of these, split by commas")
    parser.add_argument(
        "--turns", type=int, default=3, help="turns of each kind of request, of which the best counts (3)"
    )
    parser.add_argument("--write", type=Path, help="write page and charts, such as docs/benchmarks/peers.md")
    options = parser.parse_args(arguments)
    try:
        require_tools()
        results = run(options.only.lower().split(","), turns=options.turns)
    except (ToolMissing, EnvoyUnavailable) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    command = " ".join(["python -m loadtest.bench.peers", *sys.argv[1:]])
    text = page(results, command)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text, encoding="utf-8")
        chart(results, options.write.with_suffix(".svg"))
    return 1 if any(row.figures and row.figures.failed for result in results for row in result.rows) else 0


def run(only: Sequence[str], *, turns: int) -> list[Result]:
    """Measure the peers one after another; one that cannot be measured says why, and the others go on."""
    front_cpu, load_cpu = sorted(os.sched_getaffinity(0))[:2]
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-peers-") as folder,
        stub(Path(folder), (SMALL, LARGE), load_cpu) as stubs,
    ):
        for number, peer in enumerate(peers()):
            if any(part in peer.name.lower() for part in only):
                own = Path(folder) / str(number)
                own.mkdir()
                place = Place(own, front_cpu, stubs, say)
                try:
                    results.append(_measure(peer, place, load_cpu=load_cpu, turns=turns))
                except (NotInstalled, ChildFailed, WrongAnswer, LoadFailed, TimeoutError) as error:
                    say(f"{peer.name}: {error}")
                    results.append(Result(peer.name, peer.version(), peer.runs_model, trouble=str(error)))
    return results


def _measure(peer: Peer, place: Place, *, load_cpu: int, turns: int) -> Result:
    mark, tree = uuid.uuid4().hex, None
    os.environ[MARK] = mark  # what is started from here on inherits it
    started = time.monotonic()
    try:
        with peer.start(place) as running:
            del os.environ[MARK]
            tree = Tree(mark, running.pid)
            _wait_answered(peer.works[0], running)
            ready_s = time.monotonic() - started
            idle = tree.memory_bytes()
            say(f"{peer.name}: ready after {ready_s:.1f} s, {idle / 1e6:.0f} MB")
            rows = []
            for work in peer.works:
                try:
                    figures = measure(work, running.of(work), tree, place.folder, load_cpu=load_cpu, turns=turns)
                except (WrongAnswer, LoadFailed) as error:
                    say(f"{peer.name}, {work.name}: {error}")
                    rows.append(Row(work.name, work.form, work.size, None, str(error)))
                    continue
                found = f"{figures.cpu_us:,.0f} us, {figures.per_second:,.0f}/s, failed {figures.failed}"
                say(f"{peer.name}, {work.name}: {found}")
                rows.append(Row(work.name, work.form, work.size, figures))
            return Result(peer.name, peer.version(), peer.runs_model, ready_s, tree.memory_bytes(), tuple(rows))
    finally:
        os.environ.pop(MARK, None)
        if tree is not None:
            tree.end()


def _wait_answered(work: Work, running: Running) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            answer, _ = call_once(work.wire, running.of(work), work.path, work.body, work.all_headers)
            work.check(answer)
            return
        except WrongAnswer as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no right answer within {_READY_S:g} s: {error}") from error
            time.sleep(0.1)


def say(line: str) -> None:
    """Progress, apart from the page."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
