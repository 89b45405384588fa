"""What happened in a rollout and why, told from its journal: `penstock rollout explain`.

Pure: rows in, values and words out. Every figure is what the judge was given or said at the time, never computed
anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rollout.journal import Kind, Record, RolloutRow
from rollout.judge.verdict import MetricReport, Verdict, evidence_words, percent_words
from rollout.machine import VERBS, Event, Progress, State
from rollout.ports import FULL_WEIGHT
from rollout.records import verdict_from_json


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One metric at the moment of a change. `decided`: it alone gave the verdict."""

    metric: str
    words: str
    decided: bool


@dataclass(frozen=True, slots=True)
class Chapter:
    """One change of state, and what was seen since the one before.

    `after_s` counts from the rollout's creation; `weight_bp` is the candidate's share from here on. `by` is set when
    it was an operator's word, which no evidence stands behind. `ticks` were judged before it, `missing` of them had
    no telemetry, and `why_missing` gives the last reason.
    """

    after_s: float
    event: str
    state: State
    step: int
    weight_bp: int
    reason: str
    by: str = ""
    metrics: tuple[MetricLine, ...] = ()
    ticks: int = 0
    missing: int = 0
    why_missing: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    rollout_id: int
    model: str
    stable: int
    candidate: int
    state: State
    chapters: tuple[Chapter, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The story as plain text, one line each."""
        head = f"rollout {self.rollout_id}: {self.model} from version {self.stable} to {self.candidate}"
        told = [f"{head}, {self.state.value}"]
        for chapter in self.chapters:
            told += _told(chapter)
        return told


def explain(row: RolloutRow, records: Sequence[Record]) -> Explanation:
    chapters: list[Chapter] = []
    before, since = Progress(), Chapter(0.0, "", State.PENDING, 0, 0, "")
    for record in records:
        match record.kind:
            case Kind.TICK:
                why = record.body.get("missing", "")
                since = replace(
                    since,
                    ticks=since.ticks + 1,
                    missing=since.missing + bool(why),
                    why_missing=why or since.why_missing,
                )
            case Kind.NOTE:
                since = replace(since, notes=(*since.notes, record.body["text"]))
            case Kind.TRANSITION:
                progress = Progress.from_json(record.body["progress"])
                chapters.append(_chapter(row, record, progress, before, since))
                before, since = progress, Chapter(0.0, "", State.PENDING, 0, 0, "")
            case Kind.CHECKPOINT:
                pass
    return Explanation(row.id, row.model, row.stable, row.candidate, row.state, tuple(chapters))


def _chapter(row: RolloutRow, record: Record, progress: Progress, before: Progress, since: Chapter) -> Chapter:
    event = Event(record.body["event"])
    judged = event in (Event.ADVANCE, Event.HARM) or (event in VERBS and before.step >= 0)
    verdict = verdict_from_json(record.body["verdict"]) if judged and record.body["verdict"] else None
    return replace(
        since,
        after_s=record.at - row.created_at,
        event=event.value,
        state=progress.state,
        step=progress.step + 1,
        weight_bp=FULL_WEIGHT if progress.state is State.PROMOTED else progress.lease_bp,
        reason=record.body["reason"],
        by=(record.body["by"] or "an operator") if event in VERBS else "",
        metrics=_metrics(verdict, event),
    )


def _metrics(verdict: Verdict | None, event: Event) -> tuple[MetricLine, ...]:
    if verdict is None:
        return ()
    harmful = [report for report in verdict.metrics if report.harmful]
    deciding = max(harmful, key=lambda r: r.harm_log_e - r.harm_log_needed) if harmful else None
    return tuple(
        MetricLine(report.metric.value, _numbers(report), event is Event.HARM and report is deciding)
        for report in verdict.metrics
    )


def _numbers(report: MetricReport) -> str:
    words = (
        f"candidate {report.canary_bad:,.0f} of {report.canary_total:,.0f} ({percent_words(report.canary_rate)}), "
        f"stable {report.stable_bad:,.0f} of {report.stable_total:,.0f} ({percent_words(report.stable_rate)}); "
        f"harm: {evidence_words(report.harm_log_e, report.harm_log_needed)}"
    )
    if report.margin is not None:
        shown = evidence_words(report.safe_log_e, report.safe_log_needed)
        words += f"; within margin {report.margin:g}: {shown}"
    if report.phi > 1.0:
        words += f"; noise counted {report.phi:.2f} times"
    return words


def _told(chapter: Chapter) -> list[str]:
    said = f"{chapter.event} by {chapter.by}" if chapter.by else chapter.event
    place = f"{chapter.state.value} {chapter.step}" if chapter.state is State.STEP else chapter.state.value
    reason = f": {chapter.reason}" if chapter.reason else ""
    told = [f"+{chapter.after_s:,.0f} s  {said} -> {place}, weight {chapter.weight_bp / 100:g} %{reason}"]
    if chapter.by:
        told.append("    an operator's word: no evidence was asked for")
    told += [f"    {'* ' if line.decided else ''}{line.metric}: {line.words}" for line in chapter.metrics]
    if chapter.ticks:
        gaps = f", {chapter.missing} without telemetry ({chapter.why_missing})" if chapter.missing else ""
        told.append(f"    judged {chapter.ticks:,} ticks{gaps}")
    told += [f"    note: {note}" for note in chapter.notes]
    return told
