"""A recorded test gives the same figures and report wherever it was counted; the page needs nothing from outside."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.charts import latency_scale, linear_scale, number
from loadtest.conclusion import conclude
from loadtest.figures import Figures
from loadtest.objectives import Objectives
from loadtest.plan import Plan
from loadtest.protocols import Protocol
from loadtest.record import Event, Record, Surroundings
from loadtest.report import report_html
from loadtest.scenarios import Scenario
from loadtest.tables import seconds_csv, summary_csv
from loadtest.tally import Tally

HERE = Surroundings("2026-01-01 00:00:00 UTC", "penstock load digits", cores=2, processes=1, versions={"locust": "2"})
VOID = {"meta", "link", "br", "line", "path"}

OUTCOME = st.tuples(
    st.integers(min_value=0, max_value=30),
    st.sampled_from([protocol.value for protocol in Protocol]),
    st.integers(min_value=0, max_value=3),
    st.floats(min_value=50.0, max_value=5e6),
    st.sampled_from(["", "", "", "UNAVAILABLE", "INTERNAL"]),
)


def counted(outcomes: list[tuple[int, str, int, float, str]]) -> Tally:
    tally = Tally()
    for second, protocol, version, latency_us, reason in outcomes:
        caller = f"caller-{second % 7}"
        tally.turn(second, lag_us=latency_us / 10, queued_us=0.0)
        if reason:
            tally.failure(protocol, version, caller, reason, "<b>said</b> & done", second=second)
        else:
            tally.success(protocol, version, caller, latency_us, second=second, came=second)
    tally.used_cpu(1, cpu_s=0.25, share=0.25)
    return tally


def record_of(tally: Tally, **changes: object) -> Record:
    plan = Plan("digits", protocols=(Protocol.JSON,), seconds=30.0, objectives=Objectives({99.0: 100.0}, 0.01, None))
    values = {"plan": plan, "tally": tally, "seconds": 30.0, "events": (), "surroundings": HERE, **changes}
    return Record(**values)  # type: ignore[arg-type]  # a test names the fields that matter to it


class Tags(HTMLParser):
    """Checks that tags close in order, and gathers addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@settings(max_examples=25)
@given(st.lists(OUTCOME, max_size=60))
def test_any_record_gives_a_whole_page_that_loads_nothing(
    outcomes: list[tuple[int, str, int, float, str]],
) -> None:
    figures = Figures(record_of(counted(outcomes), events=(Event(2.5, "version 2: step 1"), Event(3.0, "<i>"))))
    page = report_html(figures, conclude(figures))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.addresses == []
    assert not re.search(r"url\(|@import", page)
    assert "<b>said" not in page
    assert "NaN" not in page


@given(st.lists(OUTCOME, max_size=60))
def test_a_record_survives_its_file(outcomes: list[tuple[int, str, int, float, str]]) -> None:
    record = record_of(counted(outcomes), outcome="ended as promoted", candidate=2)
    again = Record.from_json(record.to_json())
    assert again.to_json() == record.to_json()
    assert again.plan == record.plan


@given(st.lists(OUTCOME, max_size=60), st.integers(min_value=1, max_value=4))
def test_workers_together_count_what_one_process_would(
    outcomes: list[tuple[int, str, int, float, str]], workers: int
) -> None:
    whole = Figures(record_of(counted(outcomes)))
    gathered = Tally()
    for worker in range(workers):
        tally = counted(outcomes[worker::workers])
        gathered.merge(tally.drain())
        assert tally.to_json() == Tally().to_json()
    parts = Figures(record_of(gathered))
    assert (parts.requests, parts.failed, parts.lost) == (whole.requests, whole.failed, whole.lost)
    assert parts.latencies.pairs() == whole.latencies.pairs()
    assert sorted((f.reason, f.version, f.count) for f in parts.failures()) == sorted(
        (f.reason, f.version, f.count) for f in whole.failures()
    )
    assert parts.tally.results(1.0).users_by_version == whole.tally.results(1.0).users_by_version


@given(st.lists(OUTCOME, min_size=1, max_size=60))
def test_the_tables_add_up(outcomes: list[tuple[int, str, int, float, str]]) -> None:
    record = record_of(counted(outcomes))
    summary = list(csv.DictReader(io.StringIO(summary_csv(Figures(record)))))
    seconds = list(csv.DictReader(io.StringIO(seconds_csv(record))))
    for column in ("requests", "failed"):
        total = int(summary[-1][column])
        assert total == sum(int(row[column]) for row in summary[:-1]) == sum(int(row[column]) for row in seconds)


def test_a_candidates_own_failures_are_not_lost_but_everybody_elses_are() -> None:
    tally = Tally()
    tally.success("json", 1, "anna", 1_000.0)
    tally.failure("json", 2, "bert", "INTERNAL", "its own bug")
    plan = Plan("digits", scenario=Scenario.CANARY, deploy="x", objectives=Objectives({}, lost=0))
    record = record_of(tally, plan=plan, candidate=2, outcome="ended as rolled back")
    assert conclude(Figures(record)).met
    tally.failure("json", 0, "carl", "ConnectionRefusedError", "nobody listens")
    conclusion = conclude(Figures(record))
    assert not conclusion.met
    assert conclusion.verdict == (
        "Not met: lost requests 1 of 3 exceeds 0. The rollout of version 2 ended as rolled back; "
        "1 failed by version 2's own fault."
    )


def test_a_run_that_was_cut_short_or_sent_nothing_is_not_met() -> None:
    tally = counted([(1, "json", 1, 1_000.0, "")])
    assert conclude(Figures(record_of(tally))).met
    assert not conclude(Figures(record_of(tally, stopped_early="it was interrupted"))).met
    assert conclude(Figures(record_of(Tally()))).verdict == "Not met: no request was sent."


def test_a_busy_generator_is_told_so_that_it_is_not_taken_for_the_server() -> None:
    tally = counted([(1, "json", 1, 100_000.0, "")])
    assert "late (p99)" in conclude(Figures(record_of(tally))).cautions[0]
    tally.used_cpu(1, cpu_s=0.99, share=0.99)
    assert "at its limit in 1 s (up to 99% of a core)" in conclude(Figures(record_of(tally))).cautions[0]
    generator = Figures(record_of(tally)).generator()
    assert generator.cost_us == pytest.approx(1.24e6)
    assert generator.limit == pytest.approx(1 / 1.24)


def test_a_ramp_marks_where_its_last_carried_step_ended() -> None:
    plan = Plan("digits", protocols=(Protocol.JSON,), scenario=Scenario.RAMP, rate=10.0, seconds=30.0)
    tally = Tally()
    for second in range(15):
        due = int(plan.schedule.rate_at(second + 0.5))
        for _ in range(min(due, 3)):  # the fourth step is due 4 requests a second
            tally.success("json", 1, "caller-1", 1_000.0, second=second, came=second)
    figures = Figures(record_of(tally, plan=plan, seconds=15.0, events=(Event(1.0, "before"),)))
    assert [(event.second, event.what) for event in figures.events()] == [
        (1.0, "before"),
        (9.0, "from here on not carried: at 4/s only 3/s were answered"),
    ]
    page = report_html(figures, conclude(figures))
    assert "<li>9 s: from here on not carried: at 4/s only 3/s were answered</li>" in page


def test_options_in_a_caution_are_not_broken_across_lines() -> None:
    tally = counted([(1, "json", 1, 100_000.0, "")])
    tally.used_cpu(1, cpu_s=0.99, share=0.99)
    figures = Figures(record_of(tally))
    assert "(<code>--workers</code>)" in report_html(figures, conclude(figures))


@given(st.lists(st.floats(min_value=1e-3, max_value=1e5), min_size=1, max_size=50))
def test_every_value_lies_on_its_axis_and_ticks_are_in_order(values: list[float]) -> None:
    for scale in (latency_scale(values), linear_scale(max(values))):
        assert scale.high >= max(values) * (1 - 1e-9)
        assert all(0.0 <= scale.at(value) <= 1.0 for value in values)
        assert list(scale.ticks) == sorted(scale.ticks)
        assert 2 <= len(scale.ticks) <= 13
        assert len({number(tick) for tick in scale.ticks}) == len(scale.ticks)
