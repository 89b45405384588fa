"""Measures every case in turns: all cases once, then all again, so that a busy spell of the machine meets them all."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.bench.gateway.calls import Wire, WrongAnswer, call_once
from loadtest.bench.gateway.cases import Case
from loadtest.bench.gateway.cpu import process_time
from loadtest.bench.gateway.fronts import Front
from loadtest.bench.gateway.load import LoadResult, run_load


@dataclass(frozen=True, slots=True)
class Turn:
    """One case once. `busy`: share of h2load's time in which the front ran or waited for its core; 1 is saturated."""

    us_per_request: float
    busy: float
    requests: int
    failed: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A case's turns; the best is the one that other processes of the machine disturbed least."""

    case: Case
    turns: tuple[Turn, ...]

    @property
    def best(self) -> Turn:
        return min(self.turns, key=lambda turn: turn.us_per_request)

    @property
    def worst_us(self) -> float:
        return max(turn.us_per_request for turn in self.turns)

    @property
    def failed(self) -> int:
        return sum(turn.failed for turn in self.turns)

    @property
    def requests(self) -> int:
        return sum(turn.requests for turn in self.turns)


def measure(
    cases: Sequence[Case],
    fronts: Mapping[str, Front],
    folder: Path,
    *,
    rounds: int,
    load_cpu: int,
    progress: Callable[[str], None],
) -> list[Measured]:
    """Check every answer once, warm up, then measure `rounds` turns of each case. Raises WrongAnswer, LoadFailed."""
    runs = []
    for number, case in enumerate(cases):
        body = folder / f"{number}.body"
        body.write_bytes(case.body)
        answer, size = call_once(case.wire, fronts[case.front].port, case.path, case.body, case.headers)
        try:
            case.check(answer)
        except (ValueError, KeyError, TypeError) as error:
            raise WrongAnswer(f"{case.name}: cannot read the answer: {error}") from error
        runs.append(_Run(case, fronts[case.front], body, size, load_cpu))
    for run in runs:
        run.turn(warm_up=True)
    turns: dict[str, list[Turn]] = {case.name: [] for case in cases}
    order = random.Random(1)  # another order each round, and the same in every run of the bench
    for number in range(rounds):
        for run in order.sample(runs, len(runs)):
            turn = run.turn()
            turns[run.case.name].append(turn)
            progress(
                f"round {number + 1}: {run.case.name}: {turn.us_per_request:.1f} us, "
                f"busy {turn.busy:.0%}, failed {turn.failed}"
            )
    return [Measured(case, tuple(turns[case.name])) for case in cases]


@dataclass(frozen=True, slots=True)
class _Run:
    case: Case
    front: Front
    body: Path
    answer_bytes: int
    load_cpu: int

    def turn(self, *, warm_up: bool = False) -> Turn:
        shape = self.case.shape
        if warm_up:
            shape = replace(shape, requests=max(shape.requests // 4, shape.connections * shape.streams))
        before = process_time(self.front.pid)
        result = run_load(
            f"http://127.0.0.1:{self.front.port}{self.case.path}",
            self.body,
            self.case.headers,
            shape,
            http1=self.case.wire is Wire.JSON_H1,
            cpu=self.load_cpu,
        )
        used = process_time(self.front.pid) - before
        return Turn(
            us_per_request=used.used_ns / 1000 / result.total,
            busy=min(1.0, (used.used_ns + used.waited_ns) / (result.seconds * 1e9)),
            requests=result.total,
            failed=failures(result, self.answer_bytes),
        )


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def failures(result: LoadResult, answer_bytes: int) -> int:
    """A gRPC error is a 200 without a body: bodies must also have as many bytes as the answer that was checked."""
    if result.failed or result.data_bytes == answer_bytes * result.total:
        return result.failed
    return max(1, abs(result.total - result.data_bytes // answer_bytes))
