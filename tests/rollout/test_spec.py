"""What a person may write as a rollout spec, and what every mistake in it is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.freeze import FreezeWindow
from rollout.judge.settings import DriftAction, Metric
from rollout.machine import DeadlineAction
from rollout.spec import FixedMargins, OnNewVersion, RolloutSpec
from rollout.spec_file import Problem, SpecError, SpecFile, parse_spec, spec_from_mapping
from rollout.spec_parts import Gate, GoldenSpec, Occasion, PrometheusSpec, QueryPair, ShadowSpec, Webhook

WHOLE = """\
steps: [5, {pause: true}, 25.5, 50%, {pause: 10m}, 100]
min_step: 2m
holdback: 10
alpha: 0.5%
beta: 0.05
guardrail: false
calibration: false
margins:
  errors: 1%
  latency_p50: 10%
  latency_p99: 0.22
  accuracy: 1.2
  reward: 1.5
limits: {error_rate: 20%, latency_p99: 250ms, stable_error_rate: 0.1}
tolerance: {errors: 1.5, latency: 8%, share: 50%}
quality: {tolerance: 1.1, floor: 1%}
warmup: {start: 30s, step: 10}
deadline: {after: 1d, action: pause}
required: [errors, accuracy]
rollback_window: 24h
unready_grace: 1.5m
on_new_version: replace
drift: roll_back
min_bake: 10m
shadow: {share: 5, requests: 2000, max_disagreement: 2%, tolerance: 0.05}
golden: {file: golden.jsonl, min_accuracy: 90%, max_drop: 1%}
prometheus:
  url: http://127.0.0.1:9090
  max_age: 30s
  queries:
    requests: {stable: 'sum(r{v="{{stable}}"})', candidate: 'sum(r{v="{{candidate}}"})'}
    errors: {stable: e1, candidate: e2}
freeze:
  - {days: [fri, sat], hours: "18:00-08:00", timezone: Europe/Berlin}
notify:
  - {url: "https://hooks.example.com/T0", events: [promoted, rolled_back]}
"""


def test_nothing_written_is_the_default() -> None:
    assert parse_spec("") == parse_spec("{}") == RolloutSpec.default() == RolloutSpec()


def test_every_setting_arrives() -> None:
    assert parse_spec(WHOLE) == RolloutSpec(
        steps_bp=(500, 2550, 5000, 10_000),
        min_step_s=120.0,
        holdback_bp=1000,
        alpha=0.005,
        beta=0.05,
        guardrail=False,
        calibration=False,
        margins=FixedMargins(errors=0.01, latency_p50=0.10, latency_p99=0.22, accuracy=1.2, reward=1.5),
        max_error_share=0.2,
        max_p99_s=0.25,
        stable_error_limit=0.1,
        error_tolerance=1.5,
        latency_tolerance=0.08,
        accuracy_tolerance=1.1,
        quality_floor=0.01,
        warm_up_start_s=30.0,
        warm_up_step_s=10.0,
        deadline_s=86_400.0,
        on_deadline=DeadlineAction.PAUSE,
        required=frozenset({Metric.ERRORS, Metric.ACCURACY}),
        rollback_window_s=86_400.0,
        unready_grace_s=90.0,
        on_new_version=OnNewVersion.REPLACE,
        gates=(Gate(1), Gate(3, 600.0)),
        drift=DriftAction.ROLL_BACK,
        min_bake_s=600.0,
        share_tolerance=0.5,
        shadow=ShadowSpec(share_bp=500, requests=2000, max_disagreement=0.02, tolerance=0.05),
        golden=GoldenSpec("golden.jsonl", min_accuracy=0.9, max_drop=0.01),
        prometheus=PrometheusSpec(
            url="http://127.0.0.1:9090",
            requests=QueryPair('sum(r{v="{{stable}}"})', 'sum(r{v="{{candidate}}"})'),
            errors=QueryPair("e1", "e2"),
            max_age_s=30.0,
        ),
        freeze=(FreezeWindow(frozenset({4, 5}), 18 * 60, 32 * 60, "Europe/Berlin"),),
        notify=(Webhook("https://hooks.example.com/T0", frozenset({Occasion.PROMOTED, Occasion.ROLLED_BACK})),),
    )


def test_the_last_step_leaves_the_holdback_on_stable() -> None:
    assert RolloutSpec.default().weights_bp == (1000, 3000, 9500)


def test_the_judge_gets_what_was_written() -> None:
    judge = parse_spec(WHOLE).judge_settings()
    assert (judge.alpha, judge.beta, judge.min_step_s) == (0.005, 0.05, 120.0)
    assert judge.max_p99_us == 250_000.0
    assert judge.margins.early.errors.at(0.0) == judge.margins.final.errors.at(1e6) == 0.01


def test_specs_survive_json() -> None:
    spec = parse_spec(WHOLE)
    assert RolloutSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("text", "line", "field", "expected", "received"),
    [
        ("steps: [10, 5, 100]", 1, "steps", "steps that rise (5 follows 10)", "[10, 5, 100]"),
        ("steps: [10, 10, 100]", 1, "steps", "steps that rise (10 follows 10)", "[10, 10, 100]"),
        ("steps: [0, 100]", 1, "steps", "a first step above 0", "[0, 100]"),
        ("steps: [10, 130]", 1, "steps", "percent from 0 to 100", "[10, 130]"),
        ("steps: [10, 30]", 1, "steps", "100 as the last step (it ends at 30)", "[10, 30]"),
        ("steps: []", 1, "steps", "a list of percentages", "[]"),
        ("steps: 10", 1, "steps", "a list of percentages", "10"),
        ("steps: [0.001, 100]", 1, "steps", "in steps of 0.01", "[0.001, 100]"),
        ("beta: 0.1\nstps: [10, 100]", 2, "stps", 'did you mean "steps"?', "this key"),
        ("margins:\n  errros: 1%", 2, "margins.errros", 'did you mean "errors"?', "this key"),
        ("margins:\n\n  accuracy: 0.9", 3, "margins.accuracy", "a ratio above 1", "0.9"),
        ("margins: 3", 1, "margins", "settings under it: errors, latency_p50", "3"),
        ("min_step: 5 parsecs", 1, "min_step", 'a duration such as "30s"', "'5 parsecs'"),
        ("min_step: -1", 1, "min_step", "a duration", "-1"),
        ("min_step: .nan", 1, "min_step", "a duration", "nan"),
        ("deadline: {after: 0}", 1, "deadline.after", "a duration above zero", "0"),
        ("deadline: {action: pausee}", 1, "deadline.action", 'did you mean "pause"?', "'pausee'"),
        ("on_new_version: [queue]", 1, "on_new_version", "one of queue, replace, refuse", "['queue']"),
        ("alpha: true", 1, "alpha", "a share between 0 and 1", "True"),
        ("alpha: 5", 1, "alpha", "a share between 0 and 1", "5"),
        ("guardrail: 1", 1, "guardrail", "true or false", "1"),
        ("holdback:", 1, "holdback", "percent from 0 to 100", "nothing"),
        ("steps: [10, 100]\nholdback: 90", 2, "holdback", "a holdback below 90", "90"),
        ("steps: [97, 100]", 0, "holdback", "a holdback below 3", "5"),
        ("required: [errors, speed]", 1, "required", "a list out of errors, latency", "['errors', 'speed']"),
        ("required: [[errors]]", 1, "required", "a list out of errors, latency", "[['errors']]"),
        ("steps: [10, {pause: soon}, 100]", 1, "steps", "pause: true (until", "{'pause': 'soon'}"),
        ("steps: [10, {wait: 1m}, 100]", 1, "steps", "{pause: 10m} between them", "{'wait': '1m'}"),
        ("steps: [10, {pause: 1m}, {pause: true}, 100]", 1, "steps", "a percentage between two pauses", "[10,"),
        ("steps: [{pause: true}]", 1, "steps", "a first step above 0", "{'pause': True}"),
        ("shadow: {share: 0}", 1, "shadow.share", "percent above 0", "0"),
        ("shadow: {requests: 0.5}", 1, "shadow.requests", "a whole number of at least 1", "0.5"),
        ("shadow:\n  max_disagreement: no", 2, "shadow.max_disagreement", "or none", "False"),
        ("shadow: {tolerance: 2}", 1, "shadow.tolerance", "from 0 to 1", "2"),
        ("shadow: {shares: 2}", 1, "shadow.shares", 'did you mean "share"?', "this key"),
        ("golden: {min_accuracy: 90}", 1, "golden.file", "a value: file cannot be left out", "nothing"),
        ("golden: {file: a, min_accuracy: 90}", 1, "golden.min_accuracy", "a share from 0 to 1", "90"),
        ("golden: a.jsonl", 1, "golden", "settings under it: file", "'a.jsonl'"),
        ("drift: panic", 1, "drift", "one of hold, roll_back, ignore", "'panic'"),
        ("freeze: {days: [fri]}", 1, "freeze", "a list", "{'days': ['fri']}"),
        ("freeze:\n  - days: [fri, sun]\n    hours: 9-17", 3, "freeze.0.hours", 'such as "18:00-08:00"', "'9-17'"),
        ("freeze:\n  - days: [friday]", 2, "freeze.0.days", "a list out of mon, tue", "['friday']"),
        ("freeze:\n  - timezone: Europe/Berlim", 2, "freeze.0.timezone", "a time zone such as", "'Europe/Berlim'"),
        ("freeze:\n  - day: [fri]", 2, "freeze.0.day", 'did you mean "days"?', "this key"),
        ("notify:\n  - url: slack", 2, "notify.0.url", "an address such as https://", "'slack'"),
        ("notify: [{events: [promoted]}]", 1, "notify.0.url", "a value: url cannot be left out", "nothing"),
        ("notify: [{url: 'http://x', events: [won]}]", 1, "notify.0.events", "a list out of started", "['won']"),
        ("prometheus: {url: 'http://p'}", 1, "prometheus.queries", "a value: url, queries", "nothing"),
        (
            "prometheus:\n  url: http://p\n  queries:\n    requests: {stable: a, candidate: b}\n"
            "    errors: {stable: a, candidate: b}\n    wrong: {stable: a, candidate: b}",
            6,
            "prometheus.queries.wrong",
            "`labelled` beside it",
            "{'stable': 'a'",
        ),
        ("[1, 2]", 1, "spec", "settings such as", "[1, 2]"),
        ("a: [", 1, "text", "readable YAML", "expected the node content"),
        ("alpha: 0.1\nbeta: 0.1\nalpha: 0.2", 3, "text", "readable YAML", "alpha is given twice (first on line 1)"),
        ("1: 2", 1, "text", "readable YAML", "a key must be a word"),
        ("&a [*a]", 1, "text", "readable YAML", "an alias refers to what contains it"),
        ("steps: 2020-99-99", 0, "text", "readable YAML", "month must be in 1..12"),
    ],
)
def test_a_mistake_is_told_by_field_line_expected_and_received(
    text: str, line: int, field: str, expected: str, received: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "canary.yaml")
    problem = caught.value.problems[0]
    assert (problem.line, problem.field) == (line, field)
    assert expected in problem.expected
    assert received in problem.received
    assert str(caught.value).startswith("canary.yaml, ")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec("beta: 7\nsteps: [30, 10]\nmargins: {errors: 2}\n")
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]


def test_a_request_body_is_checked_alike() -> None:
    assert spec_from_mapping({"steps": [50, 100]}).steps_bp == (5000, 10_000)
    with pytest.raises(SpecError, match="steps: expected 100 as the last step"):
        spec_from_mapping({"steps": [50]})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_spec_or_a_clear_error(text: str) -> None:
    _checked(lambda: parse_spec(text))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_keys = st.sampled_from(sorted(SpecFile.model_fields))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_keys, _values, max_size=4))
def test_any_values_are_a_spec_or_a_clear_error(value: dict[str, object]) -> None:
    spec = _checked(lambda: spec_from_mapping(value))
    if spec is not None:
        spec.judge_settings()
        spec.plan()


def _checked(read: Callable[[], RolloutSpec]) -> RolloutSpec | None:
    problems: tuple[Problem, ...] = ()
    try:
        return read()
    except SpecError as error:
        problems = error.problems
    assert problems
    assert all(problem.expected and problem.received for problem in problems)
    return None


def test_a_latency_margin_can_be_left_unasked() -> None:
    spec = parse_spec("margins: {latency_p99: none}")
    assert RolloutSpec.from_json(spec.to_json()) == spec
    margins = spec.judge_settings().margins
    for step in (margins.early, margins.final):
        assert step.p99.relents
        assert step.p99.rows[0][1] is None
        assert not step.p50.relents
