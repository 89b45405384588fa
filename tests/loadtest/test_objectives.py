"""Objectives are read as people write them, and judged by the figure that decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.objectives import BadObjective, Objectives, judge, parse_duration_s, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250us", 250e-6),
        ("50ms", 0.05),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("10min", 600.0),
        ("2h", 7200.0),
        (" 5 s ", 5.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "50", "ms", "-5ms", "5 days", "1e3s", "٥s", "5ms 3s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadObjective, match="such as 50ms"):
        parse_duration_s(text)


@pytest.mark.parametrize(("text", "share"), [("0.1%", 0.001), ("100%", 1.0), ("0", 0.0), ("0.25", 0.25), ("1", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "101%", "2", "-1%", "nan", "inf"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(BadObjective, match=r"such as 0\.1%"):
        parse_share(text)


@given(st.text())
def test_any_text_is_read_or_refused_with_itself_in_the_message(text: str) -> None:
    for parse in (parse_duration_s, parse_share):
        try:
            value = parse(text)
        except BadObjective as error:
            said = str(error)
        else:
            said = repr(text) if value >= 0.0 else ""
        assert repr(text) in said


OBJECTIVES = Objectives({99.0: 50.0}, errors=0.001, lost=0)


def test_figures_within_the_limits_meet_them() -> None:
    findings = judge(OBJECTIVES, latency_ms={99.0: 50.0}, requests=1000, failed=1, lost=0)
    assert [finding.met for finding in findings] == [True, True, True]
    assert [str(finding) for finding in findings] == [
        "p99 50 ms (limit 50 ms)",
        "errors 0.100% (limit 0.100%)",
        "lost requests 0 of 1,000 (limit 0)",
    ]


def test_each_figure_beyond_its_limit_is_told() -> None:
    findings = judge(OBJECTIVES, latency_ms={99.0: 50.1}, requests=1000, failed=2, lost=1)
    assert [str(finding) for finding in findings] == [
        "p99 50.1 ms exceeds 50 ms",
        "errors 0.200% exceeds 0.100%",
        "lost requests 1 of 1,000 exceeds 0",
    ]


def test_a_run_without_a_request_meets_nothing() -> None:
    findings = judge(OBJECTIVES, latency_ms={99.0: None}, requests=0, failed=0, lost=0)
    assert not any(finding.met for finding in findings)


@given(
    limit=st.floats(min_value=0.1, max_value=1e4),
    figure=st.floats(min_value=0.1, max_value=1e4),
    failed=st.integers(min_value=0, max_value=100),
    share=st.floats(min_value=0.0, max_value=1.0),
)
def test_met_is_exactly_not_above_the_limit(limit: float, figure: float, failed: int, share: float) -> None:
    findings = judge(Objectives({95.0: limit}, share), latency_ms={95.0: figure}, requests=100, failed=failed, lost=0)
    assert [finding.met for finding in findings] == [figure <= limit, failed / 100 <= share]
