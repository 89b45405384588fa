"""What the demo prints can be read: whole at eighty columns, and line by line where nobody watches."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from loadtest.demo.story import ACTS
from loadtest.demo.view import Line, View
from loadtest.operators import Rollout
from loadtest.results import Results
from rollout.machine import State
from rollout.report import MetricStatus, RolloutStatus, VersionStatus

STATUS = RolloutStatus(
    rollout_id=1,
    model="digits",
    stable=1,
    candidate=2,
    state=State.STEP,
    step=2,
    steps=3,
    step_weights_bp=(1000, 3000, 9500),
    weight_bp=3000,
    granted_bp=3000,
    users_share=0.3,
    created_at=1000.0,
    since=1030.0,
    in_state_s=4.0,
    reason="shown to be safe",
    waiting_for="errors: about 42 more canary requests",
    withheld=False,
    overdue=False,
    deadline_left_s=None,
    undo_left_s=None,
    versions=(
        VersionStatus(version=1, requests=900, errors=0, p50_us=3200.0, p99_us=20800.0, labelled=880, wrong=104),
        VersionStatus(version=2, requests=100, errors=3, p50_us=None, p99_us=None, labelled=0, wrong=0),
    ),
    metrics=(MetricStatus("errors", 0.5, 0.25, "harm", "missing", 42),),
    troubles=(),
    verbs=(),
)
LINES = [
    Line(1, "a model", "live", True, "first version, live when ready", users=0.99, requests=1_031_431),
    Line(
        4,
        "a faulty model",
        "rolled back",
        True,
        "errors: 8 of 60 (13 %) of the canary's requests failed against 0 of 540 (0 %) of stable's; evidence 1.7e6",
        seconds=3.2,
        users=0.07,
        requests=60,
        failed=8,
    ),
]


def printed(width: int, *, terminal: bool = False) -> tuple[View, io.StringIO]:
    output = io.StringIO()
    return View(Console(file=output, width=width, force_terminal=terminal, highlight=False)), output


def rollout(status: RolloutStatus = STATUS) -> Rollout:
    return Rollout.from_json(status.to_json())


def test_the_operators_api_is_understood() -> None:
    seen = rollout()
    assert (seen.id, seen.stable, seen.candidate, seen.weight) == (1, 1, 2, 0.3)
    assert seen.state_words == "step 2 of 3, 30% of traffic"
    assert seen.seconds == 30.0
    assert [(arm.version, arm.requests, arm.errors, arm.p50_us) for arm in seen.arms] == [
        (1, 900, 0, 3200.0),
        (2, 100, 3, None),
    ]
    assert (seen.metrics[0].name, seen.metrics[0].toward_advance, seen.metrics[0].toward_rollback) == (
        "errors",
        0.5,
        0.25,
    )


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_closing_table_is_cut_nowhere(width: int) -> None:
    view, output = printed(width)
    view.table(LINES)
    text = output.getvalue()
    assert "…" not in text
    for word in ("v1", "v4", "live", "rolled back", "1,031,431", "99%", "7%", "60", "8", "1.7e6"):
        assert word in text
    assert all(len(line) <= width for line in text.splitlines())


def test_without_a_terminal_each_change_is_one_line() -> None:
    view, output = printed(100)
    with view.rollout() as picture:
        for status in (STATUS, STATUS, replace(STATUS, state=State.PROMOTED, weight_bp=10_000)):
            picture.show(rollout(status), Results())
    told = [line.split(" s  ")[1] for line in output.getvalue().splitlines()]
    assert told == ["v2 step 2 of 3, 30% of traffic", "v2 promoted"]


def test_a_long_wait_says_what_for() -> None:
    view, output = printed(100)
    with view.rollout() as picture:
        for seconds in (4.0, 11.0, 12.0, 21.0):
            picture.show(rollout(replace(STATUS, in_state_s=seconds)), Results())
    assert output.getvalue().count("errors: about 42 more canary requests") == 2


def test_on_a_terminal_both_versions_and_the_evidence_are_drawn() -> None:
    view, output = printed(100, terminal=True)
    with view.rollout() as picture:
        picture.show(rollout(), Results())
    text = output.getvalue()
    for words in ("v2 against v1", "v1 stable", "v2 candidate", "70%", "30%", "11.8%", "3.2 ms", "20.8 ms", "harm"):
        assert words in text


def test_an_act_comes_out_only_in_its_state_and_for_its_reason() -> None:
    better, shuffled, faulty = ACTS
    promoted = rollout(replace(STATUS, state=State.PROMOTED, reason="shown to be safe: errors within 3 %"))
    inaccurate = rollout(replace(STATUS, state=State.ROLLED_BACK, reason="accuracy: 26 of 28 wrong"))
    failing = rollout(replace(STATUS, state=State.ROLLED_BACK, reason="guardrail: 3 of 11 requests failed"))
    by_hand = rollout(replace(STATUS, state=State.ROLLED_BACK, reason="undone by anna"))
    assert [act.came_out(promoted) for act in ACTS] == [True, False, False]
    assert shuffled.came_out(inaccurate)
    assert not shuffled.came_out(failing)
    assert faulty.came_out(failing)
    assert not any(act.came_out(by_hand) for act in (better, shuffled, faulty))
