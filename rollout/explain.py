"""What happened in a rollout and why, told from its journal: `penstock rollout explain`.

Pure: rows in, values and words out. Every figure is what the judge was given or said at the time, never computed
anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rollout.calibration import Calibrated
from rollout.journal import Kind, Record, RolloutRow
from rollout.judge import Forecast
from rollout.judge.settings import Metric
from rollout.judge.verdict import MetricReport, Verdict, evidence_words, percent_words
from rollout.machine import VERBS, Event, Progress, State
from rollout.ports import FULL_WEIGHT
from rollout.records import verdict_from_json

GOLDEN = "golden"
"""Where a note of the journal has the result on the golden set."""

_UNITS = {
    Metric.ERRORS: "requests",
    Metric.LATENCY: "answers",
    Metric.ACCURACY: "labelled answers",
    Metric.REWARD: "rewarded answers",
    Metric.DRIFT: "predictions",
    Metric.PAIRED_ERRORS: "pairs",
    Metric.PAIRED_ACCURACY: "labelled pairs",
    Metric.PAIRED_LATENCY: "pairs",
    Metric.AGREEMENT: "pairs",
}


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One metric at the moment of a change, in words and numbers.

    `decided`: the verdict hung on it: the metric that showed harm, or the last to show safety. Counts are in `unit`.
    Evidence is log e-values; `budget` is the chance of a false rollback that the metric may spend, `chance` the most
    that evidence of harm this strong has when there is none. `margin` is None when nothing was asked.
    """

    metric: str
    words: str
    decided: bool
    unit: str
    report: MetricReport
    budget: float
    chance: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "report": self.report.to_json()}


@dataclass(frozen=True, slots=True)
class Chapter:
    """One change of state, and what was seen since the one before.

    `after_s` counts from the rollout's creation; `weight_bp` is the candidate's share from here on. `by` is set when
    it was an operator's word, which no evidence stands behind. `decided_by` names what the verdict hung on: a metric,
    guardrail, ceiling, readiness, deadline, gate or an operator. `ticks` were judged before it; `missing` counts
    those without telemetry by their reason, `by_request` those whose callers could not be counted.
    """

    after_s: float
    event: str
    state: State
    step: int
    weight_bp: int
    reason: str
    by: str = ""
    decided_by: str = ""
    metrics: tuple[MetricLine, ...] = ()
    ticks: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    by_request: int = 0
    notes: tuple[str, ...] = ()
    golden: Mapping[str, Any] | None = None
    """What the check on the golden set found: `GoldenScore.to_json`, with `file`, `stable`, `candidate`, `refusal`."""

    @property
    def account(self) -> tuple[str, ...]:
        """What the decision rests on, in sentences."""
        said: list[str] = []
        if self.by:
            said.append("an operator's word: no evidence was asked for")
        elif self.decided_by:
            said.append(f"decided by: {self.decided_by}")
        if self.ticks:
            gaps = "; ".join(f"{count:,} without telemetry ({why})" for why, count in self.missing.items())
            said.append(f"judged {self.ticks:,} ticks" + (f", of which {gaps}" if gaps else ", none without telemetry"))
        if self.by_request:
            said.append(f"{self.by_request:,} of them by request: the access log did not tell of all callers")
        return (*said, *(f"note: {note}" for note in self.notes))


@dataclass(frozen=True, slots=True)
class Explanation:
    rollout_id: int
    model: str
    stable: int
    candidate: int
    state: State
    chapters: tuple[Chapter, ...]
    forecast: Forecast | None = None
    """Of the step in which the rollout is; None when it is decided, or not judged now."""

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for shown, chapter in zip(value["chapters"], self.chapters, strict=True):
            shown["metrics"] = [line.to_json() for line in chapter.metrics]
        return value

    def lines(self) -> list[str]:
        """The story as plain text, one line each."""
        head = f"rollout {self.rollout_id}: {self.model} from version {self.stable} to {self.candidate}"
        told = [f"{head}, {self.state.value}"]
        for chapter in self.chapters:
            told += _told(chapter)
        if self.forecast is not None:
            told += [f"now: {self.forecast.words}", *(f"    {row.words}" for row in self.forecast.rows)]
            told += [f"    warning: {words}" for words in self.forecast.warnings]
        return told


def explain(row: RolloutRow, records: Sequence[Record]) -> Explanation:
    chapters: list[Chapter] = []
    before, since = Progress(), Chapter(0.0, "", State.PENDING, 0, 0, "")
    for record in records:
        match record.kind:
            case Kind.TICK:
                since = replace(
                    since,
                    ticks=since.ticks + 1,
                    missing=_counted(since.missing, record.body),
                    by_request=since.by_request + ("callers_missing" in record.body),
                )
            case Kind.CALIBRATION:
                since = replace(since, notes=(*since.notes, Calibrated.from_json(record.body).words()))
            case Kind.NOTE:
                golden = record.body.get(GOLDEN, since.golden)
                since = replace(since, notes=(*since.notes, record.body["text"]), golden=golden)
            case Kind.TRANSITION:
                progress = Progress.from_json(record.body["progress"])
                chapters.append(_chapter(row, record, progress, before, since))
                before, since = progress, Chapter(0.0, "", State.PENDING, 0, 0, "")
            case Kind.CHECKPOINT:
                pass
    return Explanation(row.id, row.model, row.stable, row.candidate, row.state, tuple(chapters))


def _chapter(row: RolloutRow, record: Record, progress: Progress, before: Progress, since: Chapter) -> Chapter:
    event = Event(record.body["event"])
    judged = event in (Event.ADVANCE, Event.HARM, Event.GATE_OPENED) or (event in VERBS and before.step >= 0)
    verdict = verdict_from_json(record.body["verdict"]) if judged and record.body["verdict"] else None
    metrics = _metrics(verdict, event, _units(record.body))
    by = (record.body["by"] or "an operator") if event in VERBS else ""
    return replace(
        since,
        after_s=record.at - row.created_at,
        event=event.value,
        state=progress.state,
        step=progress.step + 1,
        weight_bp=FULL_WEIGHT if progress.state is State.PROMOTED else progress.lease_bp,
        reason=record.body["reason"],
        by=by,
        decided_by="" if by else _decided_by(event, record.body["reason"], metrics),
        metrics=metrics,
    )


def _counted(missing: Mapping[str, int], tick: Mapping[str, Any]) -> Mapping[str, int]:
    why = tick.get("missing", "")
    return {**missing, why: missing.get(why, 0) + 1} if why else missing


def _decided_by(event: Event, reason: str, metrics: Sequence[MetricLine]) -> str:
    match event:
        case Event.HARM | Event.ADVANCE:
            # A guardrail or a ceiling is no metric of its own; the reason begins with its name.
            named = next((line.metric for line in metrics if line.decided), "")
            return named or reason.partition(":")[0]
        case Event.LOST | Event.NOT_READY | Event.READY:
            return "readiness"
        case Event.DEADLINE:
            return "the deadline of the spec"
        case Event.GATE_OPENED:
            return "a gate of the spec"
        case _:
            return ""


def _units(body: Mapping[str, Any]) -> Mapping[Metric, str]:
    """What each metric counts: failures of sticky traffic are counted by caller, once a second."""
    by_caller = (body["judge"] or {}).get("by_caller", False)
    return {**_UNITS, Metric.ERRORS: "caller seconds"} if by_caller else _UNITS


def _metrics(verdict: Verdict | None, event: Event, units: Mapping[Metric, str]) -> tuple[MetricLine, ...]:
    if verdict is None:
        return ()
    deciding = _deciding(verdict, event)
    return tuple(
        MetricLine(
            metric=report.metric.value,
            words=_numbers(report, units[report.metric]),
            decided=report is deciding,
            unit=units[report.metric],
            report=report,
            budget=math.exp(-report.harm_log_needed),
            chance=min(1.0, math.exp(-min(report.harm_log_e, 700.0))),
        )
        for report in verdict.metrics
    )


def _deciding(verdict: Verdict, event: Event) -> MetricReport | None:
    harmful = [report for report in verdict.metrics if report.harmful]
    asked = [report for report in verdict.metrics if report.margin is not None]
    if event is Event.HARM and harmful:
        return max(harmful, key=lambda report: report.harm_log_e - report.harm_log_needed)
    if event is Event.ADVANCE and asked:
        return min(asked, key=lambda report: report.safe_log_e - report.safe_log_needed)
    return None


def _numbers(report: MetricReport, unit: str) -> str:
    words = (
        f"candidate {report.canary_bad:,.0f} of {report.canary_total:,.0f} {unit} "
        f"({percent_words(report.canary_rate)}), stable {report.stable_bad:,.0f} of {report.stable_total:,.0f} "
        f"({percent_words(report.stable_rate)}); harm: {evidence_words(report.harm_log_e, report.harm_log_needed)} "
        f"(budget {percent_words(math.exp(-report.harm_log_needed))})"
    )
    if report.margin is not None:
        shown = evidence_words(report.safe_log_e, report.safe_log_needed)
        words += (
            f"; within margin {report.margin:g}: {shown} (budget {percent_words(math.exp(-report.safe_log_needed))})"
        )
    if report.phi > 1.0:
        words += f"; noise counted {report.phi:.2f} times"
    return words


def _told(chapter: Chapter) -> list[str]:
    said = f"{chapter.event} by {chapter.by}" if chapter.by else chapter.event
    place = f"{chapter.state.value} {chapter.step}" if chapter.state is State.STEP else chapter.state.value
    reason = f": {chapter.reason}" if chapter.reason else ""
    told = [f"+{chapter.after_s:,.0f} s  {said} -> {place}, weight {chapter.weight_bp / 100:g} %{reason}"]
    told += [f"    {'* ' if line.decided else ''}{line.metric}: {line.words}" for line in chapter.metrics]
    return told + [f"    {words}" for words in chapter.account]
