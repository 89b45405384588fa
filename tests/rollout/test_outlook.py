"""What is expected of a rollout before it begins, and whether rehearsals with the real judge go that way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rollout.machine import State
from rollout.outlook import Traffic, forecasts, outlook
from rollout.rehearsal import rehearse
from rollout.spec import RolloutSpec
from rollout.spec_parts import ShadowSpec
from rollout.traffic import Answers, Described

DEFAULT = RolloutSpec.default()
BUSY = Traffic(seconds=300.0, requests=60_000, errors=60)


@pytest.mark.parametrize(("rps", "errors"), [(20.0, 0.001), (200.0, 0.0), (2000.0, 0.0)])
def test_a_healthy_rollout_takes_about_as_long_as_foreseen(rps: float, errors: float) -> None:
    traffic = Described(rps, Answers(errors), Answers(errors), seed=2)
    foreseen = [step.forecast.pass_s or 0.0 for step in forecasts(DEFAULT, traffic.flow)]
    found = rehearse(DEFAULT, traffic)
    assert found.state is State.PROMOTED
    assert sum(foreseen) == pytest.approx(found.seconds, rel=0.5)


def test_a_stable_without_errors_takes_no_longer_than_one_with_a_few() -> None:
    took = [rehearse(DEFAULT, Described(2000.0, Answers(e), Answers(e), seed=1)).seconds for e in (0.0, 0.001)]
    assert took[0] == pytest.approx(took[1], rel=0.25)


def test_traffic_enough_leads_to_no_warning() -> None:
    found = outlook(DEFAULT, BUSY)
    assert found.warnings == ()
    assert found.traffic == "200 requests a second in the last 300 s"
    assert found.pass_s is not None
    assert [step.step for step in found.steps] == [1, 2, 3]


def test_a_step_that_cannot_see_its_margin_is_named_with_what_would_help() -> None:
    spec = replace(DEFAULT, margins=replace(DEFAULT.margins, errors=0.001))
    found = outlook(spec, replace(BUSY, requests=300, errors=0))
    assert found.warnings
    said = "step 1: 10 % of 1 requests a second is little to decide the step by within about 2 h (errors: 0.10 % more"
    assert found.warnings[0].startswith(said)
    assert "): a larger share, a mirrored shadow step, a coarser margin" in found.warnings[0]


def test_a_longer_deadline_helps() -> None:
    slow = replace(BUSY, requests=1500, errors=0)
    assert outlook(replace(DEFAULT, deadline_s=300.0), slow).warnings
    assert not outlook(replace(DEFAULT, deadline_s=24 * 3600.0), slow).warnings


def test_a_tail_that_this_traffic_cannot_measure_is_told() -> None:
    found = outlook(DEFAULT, replace(BUSY, requests=600, errors=0))
    assert found.pass_s is not None
    assert any("a p99 48 % slower would be seen in more time than there is" in words for words in found.warnings)
    assert any("its absence is asked for no longer than about 25 min" in words for words in found.warnings)


@pytest.mark.parametrize(
    ("traffic", "words"),
    [
        (Traffic(seconds=300.0), "no traffic was seen in the last 300 s"),
        (Traffic(trouble="Envoy gave no answer"), "the present traffic is not known: Envoy gave no answer"),
    ],
)
def test_no_traffic_is_said_plainly(traffic: Traffic, words: str) -> None:
    found = outlook(DEFAULT, traffic)
    assert found.steps == ()
    assert found.pass_s is None
    assert found.warnings[0].startswith(f"{words}: how long the steps will take cannot be said")


def test_a_shadow_step_is_foreseen_before_the_first() -> None:
    found = outlook(replace(DEFAULT, shadow=ShadowSpec(requests=2000)), BUSY)
    assert [step.name for step in found.steps] == ["shadow step", "step 1", "step 2", "step 3"]
    pairs = found.steps[0].forecast
    assert pairs.pass_s is not None
    assert pairs.pass_s >= 100.0
