"""The figures of one peer and one kind of request: CPU, latency at 1 and 32 in flight, throughput."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.gateway.calls import Wire, call_once
from loadtest.bench.gateway.load import LoadResult, Shape, run_load
from loadtest.bench.peers.tree import Tree
from loadtest.bench.peers.work import Work

IN_FLIGHT = 32
_TURN_S = 2.5
"""How long a turn should last: enough for the kernel's hundredths of a second of CPU time."""
_LEAST, _MOST = 40, 40_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One front under one kind of request. `cpu_us` is of the whole front, per request, at 32 in flight."""

    cpu_us: float
    alone: Latency
    together: Latency
    per_second: float
    requests: int
    failed: int


def measure(work: Work, port: int, tree: Tree, folder: Path, *, load_cpu: int, turns: int) -> Figures:
    """Check the answer, warm up, then measure; the best CPU of `turns` turns. Raises WrongAnswer, LoadFailed."""
    answer, size = call_once(work.wire, port, work.path, work.body, work.all_headers)
    work.check(answer)
    body = folder / "request.body"
    body.write_bytes(work.body)
    load = _Load(work, port, body, folder / "times.log", load_cpu)
    together = load.run(_shape(work.wire, _LEAST))  # the first requests of a process are not like the later ones
    count = _count(together)
    turned = []
    requests = failed = 0
    for _ in range(turns):
        before = tree.cpu_s()
        result = load.run(_shape(work.wire, count))
        turned.append(((tree.cpu_s() - before) * 1e6 / result.total, result, load.latency()))
        requests += result.total
        failed += _failures(result, size)
    cpu_us, result, latency = min(turned, key=lambda turn: turn[0])
    alone = load.run(Shape(max(_LEAST, count // 16), 1, 1))
    return Figures(
        cpu_us=cpu_us,
        alone=load.latency(),
        together=latency,
        per_second=result.total / result.seconds,
        requests=requests + alone.total,
        failed=failed + _failures(alone, size),
    )


def _shape(wire: Wire, count: int) -> Shape:
    return Shape(count, IN_FLIGHT, 1) if wire is Wire.JSON_H1 else Shape(count, IN_FLIGHT // 4, 4)


def _count(first: LoadResult) -> int:
    return max(_LEAST, min(_MOST, round(first.total / first.seconds * _TURN_S)))


@dataclass(frozen=True, slots=True)
class _Load:
    work: Work
    port: int
    body: Path
    log: Path
    cpu: int

    def run(self, shape: Shape) -> LoadResult:
        self.log.unlink(missing_ok=True)
        url = f"http://127.0.0.1:{self.port}{self.work.path}"
        http1 = self.work.wire is Wire.JSON_H1
        return run_load(url, self.body, self.work.all_headers, shape, http1=http1, cpu=self.cpu, times=self.log)

    def latency(self) -> Latency:
        """Of the last run. Each line of the log: start time, status, microseconds."""
        times = sorted(int(line.split()[2]) for line in self.log.read_text().splitlines())
        return Latency(_quantile(times, 0.5), _quantile(times, 0.99))


def _quantile(ordered: list[int], q: float) -> float:
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] / 1000


def _failures(result: LoadResult, size: int) -> int:
    """Not a 2xx, or not the bytes of the answer that was checked (a gRPC error is a 200 without a body).

    Some peers put an id or a time into the body, so a few bytes per answer may differ.
    """
    short = result.data_bytes < 0.9 * size * result.total
    return max(result.failed, 1 if short else 0)
