"""Options are read once into a plan; what contradicts itself, or another machine, is refused with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.objectives import Objectives
from loadtest.options import parse
from loadtest.plan import BadPlan, Plan, check, is_loopback
from loadtest.protocols import Protocol
from loadtest.scenarios import Scenario


def test_the_options_become_the_plan() -> None:
    line = "--rate 250 --duration 2m --protocol grpc,json,grpc --p99 50ms --p99.9 1s --errors 0.1% --range 0:255"
    plan = parse(["digits", *line.split()]).plan
    assert (plan.rate, plan.seconds, plan.protocols) == (250.0, 120.0, (Protocol.GRPC, Protocol.JSON))
    assert plan.objectives == Objectives({99.0: 50.0, 99.9: 1000.0}, errors=0.001)
    assert (plan.low, plan.high) == (0.0, 255.0)


def test_a_canary_may_lose_nothing_whatever_else_is_asked() -> None:
    assert parse(["digits", "--scenario", "canary", "--candidate", "2"]).plan.objectives.lost == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "the model's name is missing"),
        ("digits --p99 50", "such as 50ms"),
        ("digits --errors 5x", "such as 0.1%"),
        ("digits --protocol soap", "expected some of json, grpc, oip-http, oip-grpc"),
        ("digits --range 5:1", "LOW <= HIGH"),
        ("digits --users 0", "at least 1"),
        ("digits --dur 5s", "unrecognized arguments"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_what_was_expected(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gateway": "http://gateway.example:8080"}, "--gateway: gateway.example is not this machine"),
        ({"server": "http://10.0.0.1:8090"}, "--server: 10.0.0.1 is not this machine"),
        ({"gateway": "https://127.0.0.1"}, "expected http://HOST:PORT"),
        ({"rate": 0.0}, "expected more than 0"),
        ({"scenario": Scenario.CANARY}, "needs --deploy FILE"),
        ({"scenario": Scenario.CANARY, "deploy": "a", "candidate": 2}, "needs --deploy FILE"),
        ({"candidate": 2}, "belong to --scenario canary"),
        ({"inputs": "/nothing/there.jsonl"}, "no such file"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: Mapping[str, object], said: str) -> None:
    plan = Plan("digits", **changes)  # type: ignore[arg-type]  # a case names the fields that matter to it
    with pytest.raises(BadPlan, match=said):
        check(plan, allow_remote=False)


def test_another_machine_is_allowed_when_it_is_asked_for() -> None:
    check(Plan("digits", gateway="http://gateway.example:8080"), allow_remote=True)
    check(Plan("digits"), allow_remote=False)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("evil.localhost", False),
    ],
)
def test_loopback_is_told_by_address_and_not_by_name(host: str, here: bool) -> None:
    assert is_loopback(host) == here


@given(
    scenario=st.sampled_from(list(Scenario)),
    protocols=st.lists(st.sampled_from(list(Protocol)), unique=True).map(tuple),
    limits=st.dictionaries(st.sampled_from([50.0, 99.0, 99.9]), st.floats(min_value=0.1, max_value=1e5)),
    high=st.none() | st.floats(min_value=0, max_value=1e6),
    users=st.integers(min_value=0, max_value=10_000),
)
def test_a_plan_travels_to_workers_unchanged(
    scenario: Scenario,
    protocols: tuple[Protocol, ...],
    limits: Mapping[float, float],
    high: float | None,
    users: int,
) -> None:
    plan = Plan(
        "digits",
        scenario=scenario,
        protocols=protocols,
        objectives=Objectives(limits, 0.1, 0),
        high=high,
        users=users,
        inputs=str(Path("a.jsonl")),
    )
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.most_users >= 1
