"""Does a freshly started Envoy ever stay slow?

LuaJIT compiles a loop when it has seen it run, and what the first traffic looks like decides how. A loop that it gives
up on stays interpreted for the life of the process, many times slower. So: start Envoy, send mixed traffic, measure
the dearest call, and again with the next Envoy.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from loadtest.bench.gateway.calls import LARGE, SMALL, Wire, call_once
from loadtest.bench.gateway.cases import LARGE_JSON_H2, Case, cases
from loadtest.bench.gateway.cpu import process_time
from loadtest.bench.gateway.fronts import Front, running
from loadtest.bench.gateway.load import LoadResult, Shape, run_load
from loadtest.bench.gateway.measure import failures

WORST_RATIO = 1.5
_MIXED = 300
_WARM_UP, _MEASURED = 20, 60
_BROKEN = (b"{", b'{"instances": []}', b'{"instances": [{"x": [1, "two", 3, 4]}]}', b'{"instances": [{"x": [1e999]}]}')


@dataclass(frozen=True, slots=True)
class Fresh:
    """CPU of each Envoy per large JSON request, microseconds, and requests that failed."""

    us: tuple[float, ...]
    failed: int

    @property
    def median_us(self) -> float:
        return statistics.median(self.us)

    @property
    def ratio(self) -> float:
        """Slowest Envoy over the median one."""
        return max(self.us) / self.median_us


def measure_fresh(count: int, *, envoy_cpu: int, load_cpu: int, progress: Callable[[str], None]) -> Fresh:
    """Start `count` Envoys one after another; each gets its own order of mixed traffic."""
    every = [case for case in cases(_MIXED) if case.front == "penstock"]
    large = next(case for case in every if case.name == LARGE_JSON_H2)
    us, failed = [], 0
    for number in range(count):
        with (
            tempfile.TemporaryDirectory(prefix="bench-fresh-") as folder,
            running(
                Path(folder), (SMALL, LARGE), envoy_cpu=envoy_cpu, load_cpu=load_cpu, names=("penstock",)
            ) as fronts,
        ):
            front = fronts["penstock"]
            order = random.Random(number)
            _broken(front)
            for case in order.sample(every, len(every)):
                shape = replace(case.shape, requests=min(case.shape.requests, _MIXED))
                _load(Path(folder), front, case, shape, load_cpu)
            _load(Path(folder), front, large, Shape(_WARM_UP, 4, 4), load_cpu)
            before = process_time(front.pid)
            result, size = _load(Path(folder), front, large, Shape(_MEASURED, 4, 4), load_cpu)
            us.append((process_time(front.pid) - before).used_ns / 1000 / result.total)
            failed += failures(result, size)
        progress(f"fresh Envoy {number + 1} of {count}: {us[-1]:.0f} us per request")
    return Fresh(tuple(us), failed)


def _broken(front: Front) -> None:
    """Mistakes are part of mixed traffic: they leave loops early."""
    with httpx.Client(base_url=f"http://127.0.0.1:{front.port}") as client:
        for body in _BROKEN:
            client.post(SMALL.contract.predict_http_path, content=body, headers={"content-type": "application/json"})


def _load(folder: Path, front: Front, case: Case, shape: Shape, cpu: int) -> tuple[LoadResult, int]:
    body = folder / "request.body"
    body.write_bytes(case.body)
    answer, size = call_once(case.wire, front.port, case.path, case.body, case.headers)
    case.check(answer)
    url = f"http://127.0.0.1:{front.port}{case.path}"
    return run_load(url, body, case.headers, shape, http1=case.wire is Wire.JSON_H1, cpu=cpu), size


def section(fresh: Fresh) -> str:
    """The part of the page about it."""
    verdict = "met" if fresh.ratio <= WORST_RATIO else f"missed by {fresh.ratio - WORST_RATIO:.2f}x"
    return f"""## Freshly started Envoys

Typed JSON with 150,528 floats in {len(fresh.us)} Envoys one after another, each after mixed traffic in an order of its
own: every protocol and size, and broken bodies. LuaJIT decides by the first traffic which loops it compiles.

| median us | fastest us | slowest us | slowest / median | target | |
|---|---|---|---|---|---|
| {fresh.median_us:.0f} | {min(fresh.us):.0f} | {max(fresh.us):.0f} | {fresh.ratio:.2f} | {WORST_RATIO:g}x | {verdict} |

{fresh.failed} requests failed.
"""
