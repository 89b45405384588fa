"""A rollout told afterwards: every change with its numbers, deciding metric, missing data and whose word it was."""

from __future__ import annotations

import json
import sqlite3

from rollout.controller import Controller
from rollout.explain import Explanation
from rollout.machine import State
from rollout.report import RolloutStatus
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, Behaviour, World, make_controller, make_world, running, until


def told(candidate: Behaviour, *, gap_s: float = 0.0) -> tuple[Explanation, RolloutStatus, World]:
    async def test(clock: VirtualClock) -> tuple[Explanation, RolloutStatus, World]:
        world, connection = make_world(clock, candidate), sqlite3.connect(":memory:")
        controller: Controller = make_controller(world, connection)
        async with running(controller, world):
            started = await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, State.STEP)
            world.missing = "scrape failed" if gap_s else ""
            await clock.sleep(gap_s)
            world.missing = ""
            await until(world, controller, State.PROMOTED, State.ROLLED_BACK)
        # Told by another process, from the journal alone.
        later = make_controller(world, connection)
        return later.explain(started.rollout_id), later.rollout(started.rollout_id), world

    return run_virtual(test)


def test_a_promotion_tells_every_step_with_its_weight() -> None:
    explanation, status, _ = told(Behaviour())
    assert [(c.event, c.state, c.weight_bp) for c in explanation.chapters] == [
        ("activated", State.LOADING, 0),
        ("loaded", State.CHECKING, 0),
        ("checked", State.STEP, 1000),
        ("advance", State.STEP, 3000),
        ("advance", State.BAKING, 9500),
        ("advance", State.PROMOTING, 9500),
        ("swapped", State.PROMOTED, 10_000),
    ]
    assert [c.after_s for c in explanation.chapters] == sorted(c.after_s for c in explanation.chapters)
    assert status.state is State.PROMOTED
    for chapter in explanation.chapters:
        assert (chapter.event == "advance") == bool(chapter.metrics)


def test_a_rollback_names_the_deciding_metric_with_counts_of_both_versions() -> None:
    explanation, status, _ = told(Behaviour(wrong=0.9))
    verdict = next(c for c in explanation.chapters if c.event == "harm")
    assert [line.metric for line in verdict.metrics if line.decided] == ["accuracy"]
    accuracy = next(line for line in verdict.metrics if line.decided)
    assert "candidate " in accuracy.words
    assert "stable " in accuracy.words
    assert verdict.reason == status.reason
    assert verdict.ticks > 0
    candidate = status.version(2)
    assert candidate is not None
    assert candidate.accuracy is not None
    assert candidate.accuracy < 0.3
    assert any(line.startswith("    * accuracy: ") for line in explanation.lines())


def test_missing_telemetry_is_told_with_how_much_and_why() -> None:
    explanation, _, _ = told(Behaviour(), gap_s=20.0)
    chapter = next(c for c in explanation.chapters if c.event == "advance")
    assert 18 <= chapter.missing["scrape failed"] <= 21
    assert any("without telemetry (scrape failed)" in line for line in explanation.lines())


def test_totals_in_the_status_are_those_of_the_traffic() -> None:
    _, status, world = told(Behaviour(median_us=4000.0))
    stable, candidate = status.version(1), status.version(2)
    assert stable is not None
    assert candidate is not None
    assert candidate.p50_us is not None
    assert 3600 < candidate.p50_us < 4400
    elapsed = world.weights_seen[-1][0]
    assert 0.7 < (stable.requests + candidate.requests) / (world.rps * elapsed) <= 1.01


def test_status_and_explanation_are_json() -> None:
    explanation, status, _ = told(Behaviour(errors=0.5))
    assert json.loads(json.dumps(status.to_json(), allow_nan=False))["state"] == "rolled_back"
    assert json.loads(json.dumps(explanation.to_json(), allow_nan=False))["chapters"]
