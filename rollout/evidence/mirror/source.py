"""Paired evidence in the control plane: one exchange with the evaluator per tick, and the labels of mirrored requests.

The evaluator may be slow, dead or just started at any time: then the tick's `paired` says what is missing, and nothing
else of the tick is touched. Which pairs are wanted is the gateway's to say (`wanted`): those whose share is above 0.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import grpc

from adapters.server import Address
from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.mirror.labels import PairedLabels, PairedLabelStore
from rollout.evidence.mirror.wire import EXCHANGE, Answered, LabelNews, Order, Pair, PairTotals, Report, Totals
from rollout.ports import Clock, PairedCounts, Tick

_log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""Longest wait for the evaluator: the controller's turn waits for it."""

_COUNTED = tuple(field.name for field in fields(PairedCounts) if hasattr(PairTotals(), field.name))


@dataclass(frozen=True, slots=True)
class MirrorHealth:
    """For /metrics. `totals` is the evaluator's last word on itself; `failures` are exchanges that got no answer,
    `restarts` evaluators that began anew."""

    totals: Totals = field(default_factory=Totals)
    failures: int = 0
    restarts: int = 0


class MirrorEvidence:
    """`rollout.ports.Evidence`: pairs compared since the last read. Close it with `aclose`.

    `wanted` gives the pairs to compare now.
    """

    def __init__(
        self,
        *,
        evaluator: Address,
        wanted: Callable[[], Sequence[Pair]],
        desk: FeedbackDesk,
        labels: PairedLabelStore,
        clock: Clock,
    ) -> None:
        self._channel = grpc.aio.insecure_channel(
            str(evaluator),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_reconnect_backoff_ms", 500)],
        )
        self._exchange = self._channel.unary_unary(EXCHANGE)
        self._wanted = wanted
        self._desk = desk
        self._labels = labels
        self._clock = clock
        self._last: dict[str, PairTotals] = {}
        self._boot, self._seen = "", 0
        self._news: tuple[LabelNews, ...] = ()
        self._at = clock.now()
        self._silent_since: float | None = None
        self._totals = Totals()
        self._failures = 0
        self._restarts = 0

    @property
    def health(self) -> MirrorHealth:
        return MirrorHealth(self._totals, self._failures, self._restarts)

    @property
    def silence_s(self) -> float:
        """For how long the evaluator was asked and did not answer."""
        return 0.0 if self._silent_since is None else self._clock.monotonic() - self._silent_since

    async def aclose(self) -> None:
        await self._channel.close()

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """Ticks without arms. `paired` is None for a model that is not mirrored now. Never raises."""
        now, since = self._clock.now(), self._at
        self._at = now
        pairs = {pair.line: pair for pair in self._wanted()}
        missing = ""
        answered: tuple[Answered, ...] = ()
        fresh: Mapping[str, PairTotals] = {}
        if not pairs:
            self._silent_since = None
        else:
            missing, fresh, answered = await self._ask(tuple(pairs.values()))
        labels = await self._labelled(answered)
        return {
            model: Tick(
                at=now,
                seconds=now - since,
                paired=_paired(missing, fresh.get(pairs[model].key), labels.get(pairs[model].key))
                if model in pairs
                else None,
            )
            for model in models
        }

    async def _ask(self, pairs: tuple[Pair, ...]) -> tuple[str, Mapping[str, PairTotals], tuple[Answered, ...]]:
        order = Order(pairs, self._news, self._boot, self._seen)
        try:
            report = Report.of(await self._exchange(order.to_bytes(), timeout=PATIENCE_S, wait_for_ready=False))
        except grpc.aio.AioRpcError as error:
            self._failures += 1
            self._silent_since = self._silent_since or self._clock.monotonic()
            return f"the mirror evaluator does not answer ({error.code().name})", {}, ()
        except (ValueError, KeyError, TypeError) as error:
            self._failures += 1
            _log.warning("the mirror evaluator's report cannot be read: %r", error)
            return "the mirror evaluator's report cannot be read", {}, ()
        self._news = ()
        self._silent_since = None
        if report.boot != self._boot:
            # A new life: its counts began at 0, or we are the one who is new and count from here.
            self._restarts += bool(self._boot)
            self._last = {} if self._boot else dict(report.pairs)
        self._boot, self._seen, self._totals = report.boot, report.last_answered, report.totals
        fresh = {key: _difference(totals, self._last.get(key, PairTotals())) for key, totals in report.pairs.items()}
        self._last = dict(report.pairs)
        return "", fresh, report.answered

    async def _labelled(self, answered: tuple[Answered, ...]) -> Mapping[str, PairedLabels]:
        try:
            counts, news = await self._desk.ask(lambda: self._labels.advance(answered))
        except sqlite3.Error as error:
            _log.error("labels of %d mirrored requests were not kept: %s", len(answered), error)
            return {}
        self._news = (*self._news, *news)[-10_000:]
        return counts


def _difference(now: PairTotals, last: PairTotals) -> PairTotals:
    return PairTotals(**{name: getattr(now, name) - getattr(last, name) for name in _COUNTED})


def _paired(missing: str, totals: PairTotals | None, labels: PairedLabels | None) -> PairedCounts:
    counted = {} if totals is None else {name: getattr(totals, name) for name in _COUNTED}
    labels = labels or PairedLabels()
    return PairedCounts(
        **counted,
        labelled=labels.labelled,
        candidate_only_wrong=labels.candidate_only_wrong,
        stable_only_wrong=labels.stable_only_wrong,
        missing=missing,
    )
