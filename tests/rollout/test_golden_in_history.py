"""What a check on the golden set found is part of the rollout's journal: told, drawn, and told again from a dump."""

from __future__ import annotations

import json
import sqlite3

import pytest

from rollout.chronicle import chronicle
from rollout.dump import parse
from rollout.evidence.golden.score import GoldenScore, Marked, refusal, score
from rollout.explain import GOLDEN, Explanation, explain
from rollout.machine import State
from rollout.performer import Checked
from rollout.replay import replay
from rollout.report_page import report_page
from rollout.spec_parts import GoldenSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, make_controller, make_world, running, until


def found(right: int) -> Checked:
    """A candidate that gets `right` of 50 examples right, where stable gets all."""
    marked = score([Marked(index % 2, index % 2, index % 2 if index < right else 7) for index in range(50)])
    result = {**marked.to_json(), "file": "sha256:0", "stable": 1, "candidate": 2}
    why = refusal(marked, GoldenSpec("sha256:0", max_drop=0.01))
    return Checked(refusal=why, note=marked.words(), details={GOLDEN: {**result, "refusal": why}})


def lived(checked: Checked, end: State) -> list[str]:
    async def golden(model: str, stable: int, candidate: int) -> Checked:
        return checked

    async def test(clock: VirtualClock) -> list[str]:
        world = make_world(clock)
        controller = make_controller(world, sqlite3.connect(":memory:"), checks=(golden,))
        async with running(controller, world):
            started = await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, end)
        return list(controller.journal(started.rollout_id))

    return run_virtual(test)


@pytest.mark.parametrize(
    ("right", "end", "said"),
    [(50, State.STEP, "The candidate passed."), (30, State.FAILED, "The candidate must not be exposed: golden set")],
)
def test_it_is_told_and_drawn_from_the_journal_alone(right: int, end: State, said: str) -> None:
    row, records = parse(lived(found(right), end))
    told: Explanation = explain(row, records)
    chapter = next(chapter for chapter in told.chapters if chapter.golden is not None)
    assert chapter.golden is not None
    assert GoldenScore.from_json(chapter.golden).candidate_right == right
    words = f"note: golden set of 50: candidate {2.0 * right:.1f} % right, stable 100.0 %"
    assert any(words in line for line in told.lines())
    assert json.loads(json.dumps(told.to_json()))["chapters"]
    page = report_page(chronicle(row, records), told)
    assert said in page
    assert "digits: version 2 (candidate) and version 1 (stable) on the golden set" in page
    assert replay(row, records).same


def test_without_a_golden_set_the_report_has_no_such_part() -> None:
    row, records = parse(lived(Checked(), State.STEP))
    assert "golden set" not in report_page(chronicle(row, records), explain(row, records))
