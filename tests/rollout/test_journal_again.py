"""What is made of a journal afterwards: the same verdicts again, pictures, reports and rehearsals."""

from __future__ import annotations

import json
import sqlite3
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.chronicle import chronicle
from rollout.dump import DumpError, dump, parse
from rollout.explain import explain
from rollout.journal import Kind, Record, RolloutRow
from rollout.machine import FINAL, DeadlineAction, State
from rollout.outlook import forecasts
from rollout.picture import Form, picture
from rollout.rehearsal import rehearse
from rollout.replay import replay
from rollout.report_page import report_page
from rollout.spec import RolloutSpec
from rollout.spec_parts import Gate
from rollout.traffic import Answers, Described, Recorded
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, Behaviour, make_controller, make_world, running, until


@cache
def lived(errors: float = 0.001, *, restarts: bool = False) -> tuple[RolloutRow, list[Record]]:
    """A whole rollout's journal, read back from its dump; with `restarts` the controller is restarted every 20 s."""

    async def test(clock: VirtualClock) -> list[str]:
        world, connection = make_world(clock, Behaviour(errors=errors)), sqlite3.connect(":memory:")
        controller = make_controller(world, connection)
        await controller.start("digits", 2, 1, QUICK)
        while True:
            async with running(controller, world):
                if not restarts:
                    await until(world, controller, *FINAL)
                else:
                    await clock.sleep(20.0)
            if controller.status("digits").state in FINAL:
                return list(controller.journal(1))
            controller = make_controller(world, connection)

    return parse(run_virtual(test))


@pytest.mark.parametrize(("errors", "restarts"), [(0.001, False), (0.02, False), (0.001, True)])
def test_every_verdict_comes_out_the_same_again(errors: float, restarts: bool) -> None:
    row, records = lived(errors, restarts=restarts)
    found = replay(row, records)
    assert found.differences == ()
    assert found.verdicts == sum(record.kind is Kind.TICK for record in records) > 5
    assert found.states >= 4


def test_a_changed_count_is_found() -> None:
    row, records = lived()
    index = next(i for i, record in enumerate(records) if record.kind is Kind.TICK and record.body.get("arms"))
    changed = json.loads(json.dumps(records[index].body))
    changed["arms"]["1"]["bad"] = changed["arms"]["1"].get("bad", 0) + 1
    forged = [*records[:index], replace(records[index], body=changed), *records[index + 1 :]]
    found = replay(row, forged)
    assert not found.same
    assert found.differences[0].seq >= records[index].seq


def test_a_changed_verdict_is_found() -> None:
    row, records = lived()
    index = next(i for i, record in enumerate(records) if record.kind is Kind.TICK)
    forged = list(records)
    forged[index] = replace(records[index], body={**records[index].body, "verdict": "0" * 16})
    assert [difference.seq for difference in replay(row, forged).differences] == [records[index].seq]


def test_a_dump_reads_back_as_it_was() -> None:
    row, records = lived()
    assert parse(dump(row, records)) == (row, records)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["{}", "[]", "null", '{"format": 1}'])), max_size=3))
def test_any_text_is_a_journal_or_a_clear_error(lines: list[str]) -> None:
    with pytest.raises(DumpError, match=r"^line \d+: expected a rollout's journal"):
        parse(lines)


def test_the_chronicle_has_all_that_happened() -> None:
    row, records = lived()
    told = chronicle(row, records)
    assert [change.state for change in told.changes][-1] is State.PROMOTED
    assert max(change.weight_bp for change in told.changes) == 10_000
    ticks = [record for record in records if record.kind is Kind.TICK]
    assert sum(point.stable.requests + point.candidate.requests for point in told.points) == sum(
        arm.get("ok", 0) + arm.get("bad", 0) for tick in ticks for arm in tick.body.get("arms", {}).values()
    )
    assert told.points[-1].toward_advance["errors"] == 1.0


def test_the_picture_is_an_image_that_names_what_happened() -> None:
    told = chronicle(*lived(0.02))
    assert picture(told, Form.PNG).startswith(b"\x89PNG")
    words = " ".join(ElementTree.fromstring(picture(told, Form.SVG)).itertext())
    for expected in ("rolled back", "evidence of harm", "errors", "version 2", "10 %"):
        assert expected in words


def test_the_same_journal_gives_the_same_picture() -> None:
    told = chronicle(*lived())
    assert picture(told, Form.SVG) == picture(told, Form.SVG)


def test_the_report_needs_nothing_else_and_tells_the_reason() -> None:
    row, records = lived(0.02)
    explained = explain(row, records)
    page = report_page(chronicle(row, records), explained)
    assert "src=" not in page
    assert "<link" not in page
    assert "rolled back" in page
    assert "failed against" in page
    assert "budget" in page


def test_a_rehearsal_promotes_a_candidate_like_stable() -> None:
    found = rehearse(QUICK, Described(200.0, Answers(), Answers()))
    assert found.state is State.PROMOTED
    assert [moment.weight_bp for moment in found.moments] == [1000, 3000, 9500, 10_000]
    assert found == rehearse(QUICK, Described(200.0, Answers(), Answers()))


def test_a_rehearsal_rolls_back_a_bad_one_and_counts_the_cost() -> None:
    found = rehearse(QUICK, Described(200.0, Answers(), Answers(errors=0.2)))
    assert found.state is State.ROLLED_BACK
    assert 0 < found.failed <= found.exposed < 200


def test_a_rehearsal_goes_by_gates_and_deadlines_of_the_spec() -> None:
    gated = replace(QUICK, gates=(Gate(1, 300.0), Gate(2)))
    plain, slow = (rehearse(spec, Described(200.0, Answers(), Answers())) for spec in (QUICK, gated))
    assert slow.seconds >= plain.seconds + 290.0
    assert slow.assumed == ("gates are opened by hand at once",)
    hopeless = replace(QUICK, deadline_s=60.0, on_deadline=DeadlineAction.ROLL_BACK)
    found = rehearse(hopeless, Described(0.5, Answers(), Answers()))
    assert found.state is State.ROLLED_BACK
    assert "deadline" in found.moments[-1].reason


def test_recorded_traffic_is_rehearsed_by_another_spec() -> None:
    row, records = lived()
    on = Recorded(row, records)
    assert on.flow.rps == pytest.approx(200.0, rel=0.1)
    found = rehearse(replace(QUICK, steps_bp=(5000, 10_000)), on)
    assert found.state is State.PROMOTED
    assert found.moments[0].weight_bp == 5000
    bad = rehearse(QUICK, Recorded(*lived(0.02)))
    assert bad.state is State.ROLLED_BACK


def test_a_journal_without_requests_cannot_be_rehearsed() -> None:
    row, records = lived()
    with pytest.raises(ValueError, match="expected recorded requests, found none"):
        Recorded(row, [record for record in records if record.kind is not Kind.TICK])


def test_the_forecast_covers_every_step() -> None:
    spec = RolloutSpec()
    steps = forecasts(spec, Described(200.0, Answers(), Answers()).flow)
    assert [step.weight_bp for step in steps] == list(spec.weights_bp)
    assert all(step.forecast.rows for step in steps)
