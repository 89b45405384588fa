"""Predictions and feedback find each other in any order, are counted once, and survive a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.database import open_database
from rollout.evidence.feedback import FeedbackDesk, FeedbackEvidence, FeedbackUnavailable
from rollout.evidence.feedback_request import Entry, Feedback, Kind
from rollout.evidence.feedback_store import (
    FeedbackConflict,
    FeedbackLimits,
    FeedbackRefused,
    FeedbackStore,
    Prediction,
    Receipt,
    ReceiptState,
    TooMuchPending,
)
from rollout.ports import ArmCounts
from tests.clocks import ManualClock

LIMITS = FeedbackLimits(max_predictions=100, retain_s=1000.0, join_limit_s=10.0, max_pending=50)


class Kept:
    """A store on a file, its clock, and short ways to use it."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.connection = open_database(path)
        self.store = FeedbackStore(connection=self.connection, clock=self.clock, limits=LIMITS)

    def predicted(self, request_id: str, version: int = 1, labels: tuple[Any, ...] | None = (3,)) -> None:
        self.store.record([Prediction(request_id, "digits", version, labels, self.clock.now())], [])

    def says(self, request_id: str, value: Any, *, row: int | None = None, kind: Kind = Kind.LABEL) -> Receipt:
        entry = Entry(row or 0, row is not None, kind, value)
        (result,) = self.store.record([], [Feedback(request_id, (entry,))])
        if isinstance(result, FeedbackRefused):
            raise result
        return result

    def lists(self, request_id: str, *values: Any) -> Receipt:
        entries = tuple(Entry(row, True, Kind.LABEL, value) for row, value in enumerate(values))
        (result,) = self.store.record([], [Feedback(request_id, entries)])
        if isinstance(result, FeedbackRefused):
            raise result
        return result

    def counts(self) -> dict[int, ArmCounts]:
        return self.store.counts("digits", 0, self.store.position)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "feedback.db")
    yield kept
    kept.connection.close()


def test_a_label_counts_for_the_version_that_answered(kept: Kept) -> None:
    kept.predicted("a", version=1)
    kept.predicted("b", version=2)
    assert kept.says("a", 3) == Receipt("a", ReceiptState.JOINED, False, 1, "digits", 1)
    kept.says("b", "4")
    assert kept.counts() == {1: ArmCounts(labelled=1, wrong=0), 2: ArmCounts(labelled=1, wrong=1)}


def test_a_label_that_came_first_waits_for_its_prediction(kept: Kept) -> None:
    assert kept.says("a", 3).state is ReceiptState.PENDING
    assert (kept.store.pending, kept.counts()) == (1, {})
    kept.predicted("a", version=2)
    assert (kept.store.pending, kept.counts()) == (0, {2: ArmCounts(labelled=1)})


def test_a_label_waits_no_longer_than_the_limit(kept: Kept) -> None:
    kept.says("a", 3)
    kept.clock.seconds += LIMITS.join_limit_s + 1
    kept.predicted("other")
    assert (kept.store.pending, kept.store.totals.expired) == (0, 1)
    kept.predicted("a")
    assert kept.counts() == {}


def test_rewards_are_summed(kept: Kept) -> None:
    kept.predicted("a", labels=None)
    kept.predicted("b", labels=None)
    kept.says("a", 0.5, kind=Kind.REWARD)
    kept.says("b", -2.0, kind=Kind.REWARD)
    assert kept.counts() == {1: ArmCounts(reward_count=2, reward_sum=-1.5)}


def test_the_same_feedback_again_is_a_duplicate_and_counts_once(kept: Kept) -> None:
    kept.predicted("a")
    kept.says("a", 4)
    again = kept.says("a", 4)
    assert (again.duplicate, again.version) == (True, 1)
    assert kept.counts() == {1: ArmCounts(labelled=1, wrong=1)}


def test_a_duplicate_of_waiting_feedback_says_so(kept: Kept) -> None:
    kept.says("a", 4)
    again = kept.says("a", 4)
    assert (again.duplicate, again.state) == (True, ReceiptState.PENDING)
    assert kept.store.pending == 1


def test_other_feedback_for_the_same_row_is_refused(kept: Kept) -> None:
    kept.predicted("a")
    kept.says("a", 4)
    with pytest.raises(FeedbackConflict, match="label of row 0 is recorded as 4 already"):
        kept.says("a", 5)
    assert kept.counts() == {1: ArmCounts(labelled=1, wrong=1)}


def test_a_label_and_a_reward_for_one_request_are_both_kept(kept: Kept) -> None:
    kept.predicted("a")
    kept.says("a", 3)
    kept.says("a", 1.0, kind=Kind.REWARD)
    assert kept.counts() == {1: ArmCounts(labelled=1, reward_count=1, reward_sum=1.0)}


class TestRows:
    def test_a_list_labels_every_row(self, kept: Kept) -> None:
        kept.predicted("a", labels=(1, 2, 3))
        assert kept.lists("a", 1, 9, 3).rows == 3
        assert kept.counts() == {1: ArmCounts(labelled=3, wrong=1)}

    def test_rows_can_be_labelled_one_by_one(self, kept: Kept) -> None:
        kept.predicted("a", labels=(1, 2))
        kept.says("a", 2, row=1)
        kept.says("a", 1, row=0)
        assert kept.counts() == {1: ArmCounts(labelled=2)}

    def test_a_row_that_is_not_there_is_refused_and_nothing_is_recorded(self, kept: Kept) -> None:
        kept.predicted("a", labels=(1, 2))
        with pytest.raises(FeedbackRefused, match="the request had 2 rows") as refused:
            kept.lists("a", 1, 2, 3)
        assert (refused.value.expected, refused.value.received) == ("rows 0 to 1", "row 2")
        assert kept.counts() == {}

    def test_one_label_for_many_rows_must_say_which(self, kept: Kept) -> None:
        kept.predicted("a", labels=(1, 2))
        with pytest.raises(FeedbackRefused, match="send a list of 2 labels, or say which row"):
            kept.says("a", 1)

    def test_feedback_that_came_first_and_does_not_fit_counts_for_nobody(self, kept: Kept) -> None:
        kept.says("a", 1)
        kept.predicted("a", labels=(1, 2))
        assert (kept.store.pending, kept.store.totals.unmatched, kept.counts()) == (0, 1, {})

    def test_a_model_without_labels_takes_rewards_only(self, kept: Kept) -> None:
        kept.predicted("a", labels=None)
        with pytest.raises(FeedbackRefused, match=r"digits version 1 gave no label .* send a reward instead"):
            kept.says("a", 1)


class TestBounds:
    def test_only_the_newest_predictions_are_kept(self, kept: Kept) -> None:
        for number in range(LIMITS.max_predictions + 1):
            kept.predicted(f"request-{number}")
        assert kept.says("request-0", 3).state is ReceiptState.PENDING
        assert kept.says("request-1", 3).state is ReceiptState.JOINED

    def test_old_predictions_are_dropped(self, kept: Kept) -> None:
        kept.predicted("old")
        kept.clock.seconds += LIMITS.retain_s + 1
        kept.predicted("new")
        assert kept.says("old", 3).state is ReceiptState.PENDING
        assert kept.says("new", 3).state is ReceiptState.JOINED

    def test_waiting_feedback_is_bounded(self, kept: Kept) -> None:
        for number in range(LIMITS.max_pending):
            kept.says(f"request-{number}", 3)
        with pytest.raises(TooMuchPending, match="check that request_id is the x-request-id"):
            kept.says("one-more", 3)

    def test_a_request_id_used_twice_keeps_its_first_answer(self, kept: Kept) -> None:
        kept.predicted("a", version=1)
        kept.predicted("a", version=2)
        assert kept.says("a", 3).version == 1


def test_everything_survives_a_restart(kept: Kept, tmp_path: Path) -> None:
    kept.predicted("a")
    kept.says("a", 3)
    kept.says("b", 3)
    again = Kept(tmp_path / "feedback.db")
    assert (again.store.pending, again.store.position) == (1, 1)
    again.predicted("b")
    assert again.counts() == {1: ArmCounts(labelled=2)}
    again.connection.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_order_of_arrival_does_not_matter(data: st.DataObject) -> None:
    """Every label of every request is counted exactly once, whatever came first, and however often it is repeated."""
    answers = {f"r{i}": (data.draw(st.integers(1, 2)), data.draw(st.integers(0, 2))) for i in range(6)}
    truth = {request: data.draw(st.integers(0, 2)) for request in answers}
    events = data.draw(st.permutations([(kind, r) for r in answers for kind in ("log", "label", "label")]))
    clock = ManualClock()
    connection = open_database(Path(":memory:"))
    store = FeedbackStore(connection=connection, clock=clock, limits=LIMITS)
    for kind, request in events:
        version, label = answers[request]
        if kind == "log":
            store.record([Prediction(request, "digits", version, (label,), clock.now())], [])
        else:
            store.record([], [Feedback(request, (Entry(0, False, Kind.LABEL, truth[request]),))])
    counts = store.counts("digits", 0, store.position)
    for version in (1, 2):
        served = [request for request, (by, _) in answers.items() if by == version]
        wrong = sum(answers[request][1] != truth[request] for request in served)
        expected = ArmCounts(labelled=len(served), wrong=wrong)
        assert counts.get(version, ArmCounts()) == expected
    connection.close()


class TestDesk:
    async def test_feedback_taken_at_once_is_committed_together(self, kept: Kept) -> None:
        desk = FeedbackDesk(kept.store)
        desk.log([Prediction(f"r{i}", "digits", 1, (3,), kept.clock.now()) for i in range(40)])
        entry = (Entry(0, False, Kind.LABEL, 3),)
        receipts = await asyncio.gather(*(desk.take(Feedback(f"r{i}", entry)) for i in range(40)))
        assert {receipt.state for receipt in receipts} == {ReceiptState.JOINED}
        assert kept.counts() == {1: ArmCounts(labelled=40)}

    async def test_a_refusal_reaches_only_its_sender(self, kept: Kept) -> None:
        desk = FeedbackDesk(kept.store)
        desk.log([Prediction("a", "digits", 1, (1, 2), kept.clock.now())])
        good, bad = Entry(1, True, Kind.LABEL, 2), Entry(7, True, Kind.LABEL, 2)
        results = await asyncio.gather(
            desk.take(Feedback("a", (good,))), desk.take(Feedback("a", (bad,))), return_exceptions=True
        )
        assert isinstance(results[0], Receipt)
        assert isinstance(results[1], FeedbackRefused)

    async def test_a_store_that_cannot_be_written_is_said_to_the_sender(self, kept: Kept) -> None:
        kept.connection.execute("DROP TABLE feedback")
        desk = FeedbackDesk(kept.store)
        with pytest.raises(FeedbackUnavailable, match="cannot be written"):
            await desk.take(Feedback("a", (Entry(0, False, Kind.LABEL, 3),)))

    async def test_predictions_beyond_the_bound_are_dropped_and_counted(self, kept: Kept) -> None:
        desk = FeedbackDesk(kept.store)
        many = [Prediction(f"r{i}", "digits", 1, (3,), kept.clock.now()) for i in range(desk.MAX_WAITING + 5)]
        desk.log(many)
        assert desk.dropped == 5
        await desk.close()
        assert kept.store.totals.predictions == desk.MAX_WAITING


class TestEvidence:
    @pytest.fixture
    async def desk(self, kept: Kept) -> FeedbackDesk:
        desk = FeedbackDesk(kept.store)
        desk.log([Prediction(f"r{i}", "digits", 1 + i % 2, (3,), kept.clock.now()) for i in range(10)])
        await desk.close()
        return desk

    def evidence(
        self, kept: Kept, desk: FeedbackDesk, exposed: Mapping[int, float] = MappingProxyType({1: 0.0, 2: 0.0})
    ) -> FeedbackEvidence:
        return FeedbackEvidence(desk=desk, clock=kept.clock, exposed=lambda _: exposed)

    async def label(self, desk: FeedbackDesk, request: str, label: int = 3) -> None:
        await desk.take(Feedback(request, (Entry(0, False, Kind.LABEL, label),)))

    async def test_each_read_gives_what_was_joined_since_the_one_before(self, kept: Kept, desk: FeedbackDesk) -> None:
        evidence = self.evidence(kept, desk)
        assert (await evidence.read(["digits"]))["digits"].arms == {}
        await self.label(desk, "r0")
        await self.label(desk, "r1", 4)
        kept.clock.seconds += 1.0
        tick = (await evidence.read(["digits"]))["digits"]
        assert tick.arms == {1: ArmCounts(labelled=1), 2: ArmCounts(labelled=1, wrong=1)}
        assert (tick.seconds, tick.missing) == (1.0, "")
        assert (await evidence.read(["digits"]))["digits"].arms == {}

    async def test_labels_from_before_the_rollout_are_no_evidence_in_it(self, kept: Kept, desk: FeedbackDesk) -> None:
        await self.label(desk, "r0")
        evidence = self.evidence(kept, desk)
        assert (await evidence.read(["digits"]))["digits"].arms == {}
        await evidence.read([])
        await self.label(desk, "r2")
        assert (await evidence.read(["digits"]))["digits"].arms == {}

    async def test_late_labels_of_answers_before_the_first_step_are_no_evidence(
        self, kept: Kept, desk: FeedbackDesk
    ) -> None:
        """Stable's, and the candidate's own of an earlier rollout or of pinned calls."""
        began = kept.clock.now() + 60.0
        evidence = self.evidence(kept, desk, {1: began, 2: began})
        await evidence.read(["digits"])
        kept.clock.seconds = began
        desk.log([Prediction(f"n{i}", "digits", 1 + i % 2, (3,), began + i) for i in range(2)])
        for request in ("r0", "r1", "n0", "n1"):
            await self.label(desk, request, 4)
        tick = (await evidence.read(["digits"]))["digits"]
        assert tick.arms == {1: ArmCounts(labelled=1, wrong=1), 2: ArmCounts(labelled=1, wrong=1)}

    async def test_a_label_counts_in_the_step_in_which_it_arrives(self, kept: Kept, desk: FeedbackDesk) -> None:
        evidence = self.evidence(kept, desk)
        await evidence.read(["digits"])
        kept.clock.seconds += 900.0
        await self.label(desk, "r0")
        assert (await evidence.read(["digits"]))["digits"].arms == {1: ArmCounts(labelled=1)}

    async def test_before_the_first_step_nothing_counts(self, kept: Kept, desk: FeedbackDesk) -> None:
        evidence = self.evidence(kept, desk, {})
        await evidence.read(["digits"])
        await self.label(desk, "r0")
        assert (await evidence.read(["digits"]))["digits"].arms == {}

    async def test_a_store_that_cannot_be_read_is_a_missing_tick(self, kept: Kept, desk: FeedbackDesk) -> None:
        evidence = self.evidence(kept, desk)
        await evidence.read(["digits"])
        kept.connection.execute("ALTER TABLE feedback RENAME TO gone")
        assert "cannot be read" in (await evidence.read(["digits"]))["digits"].missing
        kept.connection.execute("ALTER TABLE gone RENAME TO feedback")
        await self.label(desk, "r0")
        assert (await evidence.read(["digits"]))["digits"].arms == {1: ArmCounts(labelled=1)}
