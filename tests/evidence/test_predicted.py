"""Predictions are counted by class and version, each class at a place of its own that a restart does not move."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollout.evidence.feedback_store import Prediction
from rollout.evidence.labels import Label
from rollout.evidence.predicted import PLACES, PredictedClasses, place
from tests.clocks import ManualClock


def predicted(version: int, *labels: Label) -> Prediction:
    return Prediction("id", "digits", version, labels, 0.0)


async def test_counts_begin_with_the_first_read_and_are_differences() -> None:
    classes = PredictedClasses(ManualClock())
    classes.record([predicted(1, 3)])
    assert (await classes.read(["digits"]))["digits"].arms == {}
    classes.record([predicted(1, 3, 3, 4), predicted(2, 4)])
    tick = (await classes.read(["digits"]))["digits"]
    assert {version: arm.predicted[3:5] for version, arm in tick.arms.items()} == {1: (2, 1), 2: (0, 1)}
    assert tick.classes[3:5] == ("3", "4")
    assert (await classes.read(["digits"]))["digits"].arms == {}


async def test_models_that_nobody_reads_are_not_counted() -> None:
    classes = PredictedClasses(ManualClock())
    await classes.read(["digits"])
    await classes.read(["iris"])
    classes.record([predicted(1, 3)])
    assert (await classes.read(["digits", "iris"]))["digits"].arms == {}


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)))
def test_every_label_has_a_place_that_depends_on_nothing_else(label: Label) -> None:
    assert 0 <= place(label) < PLACES
    if isinstance(label, int) and abs(label) < 2**53:
        assert place(float(label)) == place(label)
