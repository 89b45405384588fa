"""Command line of the bench against peers: `python -m loadtest.bench.peers` (`make bench`)."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.stack.envoy import EnvoyUnavailable
from loadtest.bench.gateway.calls import LARGE, SMALL, WrongAnswer, call_once
from loadtest.bench.gateway.fronts import stub
from loadtest.bench.gateway.load import LoadFailed, ToolMissing, require_tools
from loadtest.bench.gateway.report import commit
from loadtest.bench.peers.environments import ENVIRONMENTS, python_of
from loadtest.bench.peers.measure import measure
from loadtest.bench.peers.peers import Peer, Place, Running, peers
from loadtest.bench.peers.report import chart, page
from loadtest.bench.peers.results import Result, Row, Store
from loadtest.bench.peers.tree import MARK, Tree
from loadtest.bench.peers.work import Work

_READY_S = 120.0
MEASURED = ENVIRONMENTS / "measured.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.peers", description=__doc__)
    parser.add_argument("--only", default="", help="only peers whose name contains one of these, split by commas")
    parser.add_argument(
        "--turns", type=int, default=3, help="turns of each kind of request, of which the best counts (3)"
    )
    parser.add_argument("--resume", action="store_true", help="take over what the last run of this commit has measured")
    parser.add_argument("--write", type=Path, help="write page and charts, such as docs/benchmarks/peers.md")
    options = parser.parse_args(arguments)
    try:
        require_tools()
        store = Store(MEASURED, f"{commit()}, {options.turns} turns")
        if not options.resume and not options.only:
            store.clear()
        known = store.read() if options.resume else {}
        results = run(options.only.lower().split(","), known, turns=options.turns, store=store)
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
    return 0 if all(result.whole for result in results) else 1


def run(only: Sequence[str], known: Mapping[str, Result], *, turns: int, store: Store) -> list[Result]:
    """Measure the peers that are not `known` yet, one after another; whatever goes wrong with one, the others go on."""
    front_cpu, load_cpu = sorted(os.sched_getaffinity(0))[:2]
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-peers-") as folder,
        stub(Path(folder), (SMALL, LARGE), load_cpu) as stubs,
    ):
        for number, peer in enumerate(peers()):
            if not any(part in peer.name.lower() for part in only):
                continue
            if peer.name in known:
                say(f"{peer.name}: measured already, {known[peer.name].measured_at}")
                results.append(known[peer.name])
                continue
            own = Path(folder) / str(number)
            own.mkdir()
            begun = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            try:
                result = _measure(peer, Place(own, front_cpu, stubs, say), load_cpu=load_cpu, turns=turns)
            except Exception as error:  # a peer may fail in any way, which is said in the page
                result = Result(peer.name, _version(peer), peer.runs_model, trouble=str(error) or repr(error))
                say(f"{peer.name}: {result.trouble}")
            results.append(replace(result, measured_at=begun))
            store.add(results[-1])
    return results


def _version(peer: Peer) -> str:
    try:
        return peer.version()
    except Exception as error:  # as above
        return f"unknown: {error}"


def _measure(peer: Peer, place: Place, *, load_cpu: int, turns: int) -> Result:
    if peer.environment:
        python_of(peer.environment, say)
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
                    rows.append(Row(work.form, work.wire, work.size, None, str(error)))
                    continue
                found = f"{figures.cpu_us:,.0f} us, {figures.per_second:,.0f}/s, failed {figures.failed}"
                say(f"{peer.name}, {work.name}: {found}")
                rows.append(Row(work.form, work.wire, work.size, figures))
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
