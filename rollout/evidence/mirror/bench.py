"""The evaluator's work: a bounded queue of copies, a few workers that ask both versions, and the counts.

`offer` never waits and never fails, whatever state the rest is in: a copy that finds no room is dropped and counted.
Everything here is bounded: the queue in number and bytes, the work in hand by the number of workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters.triton.inference import Answer, BadMessage, Inference, InferRequest, Target
from rollout.evidence.labels import Label
from rollout.evidence.mirror.compare import compare
from rollout.evidence.mirror.sample import Row, Sample
from rollout.evidence.mirror.wire import MAX_ANSWERED, Answered, LabelNews, Pair, PairTotals, Side, Totals

_log = logging.getLogger(__name__)

MAX_QUEUED = 256
MAX_QUEUED_BYTES = 32 * 1024 * 1024
WORKERS = 2
"""Comparisons at a time: each asks the server one question at a time, so this is also the load that mirroring puts on
it, however much traffic there is."""

ASK_S = 10.0
"""Longest wait for one answer; longer is an error of that version."""

SLOWER_RATIO = 1.25
SLOWER_S = 0.0005
"""Latencies that differ by less, in ratio or in seconds, are the same."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A mirrored request as it came. `scope` is the model's routing key."""

    data: bytes
    request_id: str
    scope: str


@dataclass(frozen=True, slots=True)
class _Timed:
    answer: Answer
    seconds: float

    @property
    def ok(self) -> bool:
        return self.answer.status == 0


@dataclass(slots=True)
class Bench:
    """`inference` is the server that has both versions; `sample` keeps some of what was compared, None nothing."""

    inference: Inference
    sample: Sample | None = None
    totals: Totals = field(default_factory=Totals)
    pairs: dict[str, PairTotals] = field(default_factory=dict)
    _known: tuple[Pair, ...] = ()
    _queue: deque[Copy] = field(default_factory=deque)
    _waiting: asyncio.Event = field(default_factory=asyncio.Event)
    _answered: deque[Answered] = field(default_factory=deque)
    _last_answered: int = 0
    _turn: int = 0

    def take_pairs(self, pairs: Sequence[Pair]) -> None:
        """Compare these from now on. A pair that is gone loses its counts."""
        self._known = tuple(pairs)
        keys = {pair.key for pair in pairs}
        self.pairs = {key: self.pairs.get(key) or PairTotals() for key in sorted(keys)}

    def take_labels(self, labels: Sequence[LabelNews]) -> None:
        """True labels for what was sampled."""
        if self.sample is not None:
            self.sample.label(labels)

    def answered(self, seen: int) -> tuple[tuple[Answered, ...], int]:
        """The labels answered after number `seen`, and the number of the last. What was seen is forgotten."""
        fresh = max(0, self._last_answered - seen)
        while len(self._answered) > fresh:
            self._answered.popleft()
        return tuple(self._answered), self._last_answered

    def offer(self, copy: Copy) -> bool:
        """Take a copy, or drop it; whether it was taken."""
        self.totals.received += 1
        if len(self._queue) >= MAX_QUEUED or self.totals.queued_bytes + len(copy.data) > MAX_QUEUED_BYTES:
            self.totals.queue_full += 1
            for pair in self._known:
                if pair.scope == copy.scope:
                    self.pairs[pair.key].dropped += 1
            return False
        self._queue.append(copy)
        self.totals.queued += 1
        self.totals.queued_bytes += len(copy.data)
        self._waiting.set()
        return True

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(WORKERS):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._waiting.clear()
                await self._waiting.wait()
            copy = self._queue.popleft()
            self.totals.queued -= 1
            self.totals.queued_bytes -= len(copy.data)
            try:
                await self._evaluate(copy)
            except BadMessage as error:
                self.totals.unreadable += 1
                _log.debug("request %s: %s", copy.request_id, error)
            except Exception:
                # One odd request must not end the worker: it is dropped, and the log says why.
                self.totals.failed += 1
                _log.exception("request %s could not be compared", copy.request_id)

    async def _evaluate(self, copy: Copy) -> None:
        request = InferRequest.parse(copy.data)
        pair = self._pair_of(request.target)
        if pair is None:
            self.totals.stale += 1
            return
        self._turn += 1
        # By turns, so that whoever answers second gains nothing from a warm cache on average.
        first, second = (pair.stable, pair.candidate) if self._turn % 2 else (pair.candidate, pair.stable)
        asked = {first.version: await self._ask(request, first)}
        asked[second.version] = await self._ask(request, second)
        totals = self.pairs.get(pair.key)
        if totals is None:  # The pair went while it was asked.
            self.totals.stale += 1
            return
        stable, candidate = asked[pair.stable.version], asked[pair.candidate.version]
        self.totals.compared += 1
        self._count(copy.request_id, pair, totals, stable, candidate)
        if self.sample is not None:
            self.sample.keep(
                Row(
                    request_id=copy.request_id,
                    at=time.time(),
                    line=pair.line,
                    stable_version=pair.stable.version,
                    candidate_version=pair.candidate.version,
                    inputs=request.inputs(),
                    stable=stable.answer,
                    candidate=candidate.answer,
                )
            )

    def _pair_of(self, target: Target) -> Pair | None:
        for pair in self._known:
            if target.name in (pair.stable.served_name, pair.candidate.served_name):
                return pair
        return None

    async def _ask(self, request: InferRequest, side: Side) -> _Timed:
        started = time.perf_counter()
        answer = await self.inference.infer(request, Target(side.served_name, side.served_version), timeout_s=ASK_S)
        return _Timed(answer, time.perf_counter() - started)

    def _count(self, request_id: str, pair: Pair, totals: PairTotals, stable: _Timed, candidate: _Timed) -> None:
        if not (stable.ok and candidate.ok):
            totals.both_bad += not stable.ok and not candidate.ok
            totals.stable_only_bad += candidate.ok
            totals.candidate_only_bad += stable.ok
            return
        totals.both_ok += 1
        totals.candidate_slower += _slower(candidate.seconds, stable.seconds)
        totals.stable_slower += _slower(stable.seconds, candidate.seconds)
        found = compare(pair, stable.answer.outputs, candidate.answer.outputs)
        totals.agreed += found.agreed
        totals.disagreed += not found.agreed
        totals.schema += not found.same_schema
        if found.distance is not None:
            totals.distance_max = max(totals.distance_max, found.distance)
            totals.distance_sum += found.distance
            totals.distance_count += 1
        if found.labels is not None and request_id:
            self._remember(request_id, pair, *found.labels)

    def _remember(self, request_id: str, pair: Pair, stable: tuple[Label, ...], candidate: tuple[Label, ...]) -> None:
        if len(self._answered) >= MAX_ANSWERED:
            self._answered.popleft()
            self.totals.labels_dropped += 1
        self._answered.append(Answered(request_id, pair.key, stable, candidate))
        self._last_answered += 1


def _slower(one: float, other: float) -> bool:
    return one > other * SLOWER_RATIO and one - other > SLOWER_S
