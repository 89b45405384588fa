"""The evaluator asks both versions and counts; nothing that Envoy or a version does can stop it or make it grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.server import Address
from adapters.triton.inference import MODEL_INFER, BadMessage, Inference, InferRequest
from gateway.database import open_database
from gateway.server.mirror_metrics import MirrorMetrics
from rollout.clock import SystemClock
from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_request import Entry, Feedback, Kind
from rollout.evidence.feedback_store import FeedbackStore, Prediction
from rollout.evidence.mirror.bench import MAX_QUEUED, Bench, Copy
from rollout.evidence.mirror.labels import PairedLabelStore
from rollout.evidence.mirror.service import evaluator_server
from rollout.evidence.mirror.source import MirrorEvidence
from rollout.evidence.mirror.wire import Order, Pair, Report, Side
from rollout.ports import PairedCounts
from tests.evidence.versions import Versions, question, serving_versions, threshold

PAIR = Pair("digits", "digits", Side(1, "digits.1", "1"), Side(2, "digits.2", "1"), label="label")
IDS = (("x-penstock-model", "digits"),)


@dataclass
class Evaluator:
    """A working evaluator and the control plane's side of it. `pairs` are what is wanted."""

    bench: Bench
    evidence: MirrorEvidence
    versions: Versions
    desk: FeedbackDesk
    pairs: list[Pair]
    mirror: Callable[..., grpc.aio.UnaryUnaryCall]

    async def copy(self, *rows: float, request_id: str = "r", name: str = "digits.1") -> None:
        """What Envoy does with a mirrored request."""
        await self.mirror(question(*rows, name=name), metadata=(*IDS, ("x-request-id", request_id)), timeout=5)

    async def compared(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.bench.totals.compared < count:
                await asyncio.sleep(0.005)

    async def read(self) -> PairedCounts | None:
        return (await self.evidence.read(["digits"]))["digits"].paired


@asynccontextmanager
async def evaluator(folder: Path, *, working: bool = True) -> AsyncIterator[Evaluator]:
    clock = SystemClock()
    connection = open_database(folder / "feedback.db")
    desk = FeedbackDesk(FeedbackStore(connection=connection, clock=clock))
    pairs = [PAIR]
    async with serving_versions({"digits.1": threshold(0.5), "digits.2": threshold(0.7)}) as versions:
        inference = Inference(versions.address)
        bench = Bench(inference)
        server = evaluator_server(bench)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        work = asyncio.create_task(bench.run()) if working else None
        evidence = MirrorEvidence(
            evaluator=Address("127.0.0.1", port),
            wanted=lambda: pairs,
            desk=desk,
            labels=PairedLabelStore(connection=connection, clock=clock),
            clock=clock,
        )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Evaluator(bench, evidence, versions, desk, pairs, channel.unary_unary(MODEL_INFER))
        if work is not None:
            work.cancel()
        await evidence.aclose()
        await server.stop(grace=None)
        await inference.close()
        await desk.close()
        connection.close()


async def test_agreement_and_disagreement_are_counted_since_the_last_tick(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        assert await running.read() == PairedCounts()
        for x in (0.1, 0.9, 0.6):
            await running.copy(x)
        await running.compared(3)
        assert _without_latency(await running.read()) == PairedCounts(both_ok=3, agreed=2, disagreed=1)
        assert _without_latency(await running.read()) == PairedCounts()


async def test_both_versions_are_asked_by_turns_whoever_answered_the_caller(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        await running.read()
        for count, name in enumerate(("digits.1", "digits.2", "digits.1"), start=1):
            await running.copy(0.1, name=name)
            await running.compared(count)
        first = running.versions.asked[0]
        other = "digits.2" if first == "digits.1" else "digits.1"
        assert running.versions.asked == [first, other, other, first, first, other]


async def test_failures_are_told_apart_by_who_failed(tmp_path: Path) -> None:
    def broken(inputs: object) -> dict[str, object]:
        raise RuntimeError("boom")

    async with evaluator(tmp_path) as running:
        await running.read()
        running.versions.models["digits.2"] = broken
        await running.copy(0.1)
        await running.compared(1)
        running.versions.models["digits.1"] = broken
        await running.copy(0.1)
        await running.compared(2)
        running.versions.models["digits.2"] = threshold(0.7)
        await running.copy(0.1)
        await running.compared(3)
        assert await running.read() == PairedCounts(candidate_only_bad=1, both_bad=1, stable_only_bad=1)


async def test_a_label_meets_its_pair_however_late_and_once(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        await running.read()
        await running.copy(0.6, 0.9, request_id="a")
        await running.compared(1)
        await running.read()
        running.desk.log([Prediction("a", "digits", 1, (1, 1), 0.0)])
        entries = (Entry(0, True, Kind.LABEL, 1), Entry(1, True, Kind.LABEL, 1))
        await running.desk.take(Feedback("a", entries))
        # Row 0: stable says 1, the candidate 0; row 1: both say 1.
        assert await running.read() == PairedCounts(labelled=2, candidate_only_wrong=1)
        await running.desk.take(Feedback("a", entries))
        assert await running.read() == PairedCounts()


async def test_a_label_that_came_before_its_pair_counts_too(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        await running.read()
        running.desk.log([Prediction("a", "digits", 1, (1,), 0.0)])
        await running.desk.take(Feedback("a", (Entry(0, True, Kind.LABEL, 0),)))
        await running.copy(0.6, request_id="a")
        await running.compared(1)
        counts = await running.read()
        assert counts is not None
        assert (counts.labelled, counts.stable_only_wrong) == (1, 1)


async def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    async with evaluator(tmp_path, working=False) as running:
        await running.read()
        for _ in range(MAX_QUEUED + 5):
            await running.copy(0.1)
        counts = await running.read()
        assert counts is not None
        assert (counts.dropped, running.bench.totals.queue_full, running.bench.totals.queued) == (5, 5, MAX_QUEUED)


async def test_large_copies_fill_the_queue_by_their_bytes(tmp_path: Path) -> None:
    bench = Bench(Inference(Address("127.0.0.1", 1)))
    taken = [bench.offer(Copy(bytes(4 * 1024 * 1024), "r", "digits")) for _ in range(10)]
    assert taken == [True] * 8 + [False] * 2


async def test_copies_that_are_nobodys_question_are_dropped(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        await running.read()
        await running.copy(0.1, name="iris.1")
        await running.mirror(b"\xff\xff\xff", metadata=IDS, timeout=5)
        await running.copy(0.1)
        await running.compared(1)
        totals = running.bench.totals
        assert (totals.stale, totals.unreadable, totals.compared) == (1, 1, 1)


async def test_without_an_evaluator_pairs_are_missing_and_the_tick_is_not(tmp_path: Path) -> None:
    clock = SystemClock()
    connection = open_database(tmp_path / "feedback.db")
    desk = FeedbackDesk(FeedbackStore(connection=connection, clock=clock))
    labels = PairedLabelStore(connection=connection, clock=clock)
    evidence = MirrorEvidence(
        evaluator=Address("127.0.0.1", 1), wanted=lambda: [PAIR], desk=desk, labels=labels, clock=clock
    )
    tick = (await evidence.read(["digits"]))["digits"]
    assert tick.missing == ""
    assert tick.paired == PairedCounts(missing="the mirror evaluator does not answer (UNAVAILABLE)")
    assert (await evidence.read(["iris"]))["iris"].paired is None
    await evidence.aclose()
    connection.close()


async def test_a_model_that_is_not_mirrored_has_no_pairs(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        running.pairs.clear()
        assert await running.read() is None


async def test_a_restarted_evaluator_begins_at_zero_and_loses_nothing_after(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        await running.read()
        await running.copy(0.1)
        await running.compared(1)
        await running.read()
        # What a new process would say: another boot, counts from 0 with what it compared since.
        report = Report("another", running.bench.totals, {PAIR.key: running.bench.pairs[PAIR.key]})
        fresh = Report.of(report.to_bytes())
        assert fresh.pairs[PAIR.key].agreed == 1
        running.evidence._boot = "the old one"
        counts = await running.read()
        assert counts is not None
        assert (counts.agreed, running.evidence.health.restarts) == (1, 1)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"pairs": 1}', b'{"pairs": [{}], "labels": [], "boot": "", "seen": 0}']
)
def test_an_order_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Order.of(data)


def test_an_order_and_a_report_arrive_as_they_were_sent() -> None:
    order = Order((PAIR,), boot="b", seen=3)
    assert Order.of(order.to_bytes()) == order


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with suppress(BadMessage):
        InferRequest.parse(data).inputs()


def _without_latency(counts: PairedCounts | None) -> PairedCounts:
    assert counts is not None
    return PairedCounts(
        **{
            name: getattr(counts, name)
            for name in PairedCounts.__dataclass_fields__
            if name not in ("candidate_slower", "stable_slower")
        }
    )


async def test_metrics_say_what_became_of_mirrored_requests(tmp_path: Path) -> None:
    async with evaluator(tmp_path) as running:
        await running.read()
        await running.copy(0.1)
        await running.copy(0.1, name="iris.1")
        await running.compared(1)
        while not running.bench.totals.stale:
            await asyncio.sleep(0.005)
        await running.read()
        values = {
            (sample.name, sample.labels.get("outcome", "")): sample.value
            for metric in MirrorMetrics(lambda: running.evidence.health).collect()
            for sample in metric.samples
        }
    assert values[("penstock_mirror_requests_total", "compared")] == 1
    assert values[("penstock_mirror_requests_total", "stale")] == 1
    assert values[("penstock_mirror_queued", "")] == 0
