"""The report of a rollout as one HTML file that needs nothing else: picture, decisions, numbers, spec.

Written by `penstock rollout report`. Made of the journal alone, like the picture and the explanation in it.
"""

from __future__ import annotations

import json
import math
from html import escape

from rollout.chronicle import Chronicle
from rollout.evidence.golden.picture import picture as golden_picture
from rollout.evidence.golden.picture import title
from rollout.evidence.golden.score import GoldenScore
from rollout.explain import Chapter, Explanation, MetricLine
from rollout.judge.verdict import evidence_words, percent_words, share_words
from rollout.machine import State
from rollout.picture import Form, picture

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: .4em 0 1.2em; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: .25em .9em .25em 0; border-bottom: 1px solid #e2e2e2; }
th { font-weight: 600; color: #555; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.decided td { font-weight: 700; } h2 { margin: 1.6em 0 .3em; font-size: 19px; }
h3 { margin: 1.2em 0 .2em; font-size: 16px; } p.small { color: #666; font-size: 13.5px; margin: .2em 0; }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 13px; }
"""


def report_page(told: Chronicle, explained: Explanation) -> str:
    row = told.row
    title = f"Rollout {row.id}: {row.model} from version {row.stable} to {row.candidate}"
    svg = picture(told, Form.SVG).decode()
    drawing = svg[svg.index("<svg") :]
    chapters = "\n".join(_chapter(chapter) for chapter in explained.chapters)
    spec = escape(json.dumps(row.spec, indent=2))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
        f"<p>{escape(_ending(explained))}</p>\n{drawing}\n{_golden(explained)}"
        f"<h2>What happened, and why</h2>\n{chapters}\n"
        f"<h2>The spec</h2>\n<details><summary>as it was journalled</summary><pre>{spec}</pre></details>\n"
        "</body></html>\n"
    )


def _golden(explained: Explanation) -> str:
    """The last check on a golden set, if there was one."""
    found = next((chapter.golden for chapter in reversed(explained.chapters) if chapter.golden is not None), None)
    if found is None:
        return ""
    drawing = golden_picture(GoldenScore.from_json(found), title(explained.model, found["stable"], found["candidate"]))
    said = f"The candidate must not be exposed: {found['refusal']}" if found["refusal"] else "The candidate passed."
    return f"<h2>Before any traffic: the golden set</h2>\n<p>{escape(said)}</p>\n{drawing}\n"


def _ending(explained: Explanation) -> str:
    state = explained.state.value.replace("_", " ")
    last = next((chapter for chapter in reversed(explained.chapters) if chapter.reason), None)
    return f"It is {state}." if last is None else f"It is {state}: {last.reason}."


def _chapter(chapter: Chapter) -> str:
    place = f"step {chapter.step}" if chapter.state is State.STEP else chapter.state.value.replace("_", " ")
    said = f"{chapter.event.replace('_', ' ')} by {chapter.by}" if chapter.by else chapter.event.replace("_", " ")
    parts = [
        f"<h3>+{chapter.after_s:,.0f} s: {escape(said)}, then {escape(place)} at {chapter.weight_bp / 100:g} %</h3>",
        f"<p>{escape(chapter.reason)}</p>" if chapter.reason else "",
        _table(chapter),
    ]
    parts += [f'<p class="small">{escape(words)}</p>' for words in chapter.account]
    return "\n".join(part for part in parts if part)


def _table(chapter: Chapter) -> str:
    if not chapter.metrics:
        return ""
    rows = "".join(_row(line) for line in chapter.metrics)
    heads = "".join(f"<th>{head}</th>" for head in ("metric", "candidate", "stable", "harm", "safety", "noise"))
    return f"<table><tr>{heads}</tr>{rows}</table>"


def _row(line: MetricLine) -> str:
    marked, report = ' class="decided"' if line.decided else "", line.report
    safety = "not asked"
    if report.margin is not None:
        shown = evidence_words(report.safe_log_e, report.safe_log_needed)
        safety = f"margin {report.margin:g}: {shown} (budget {percent_words(math.exp(-report.safe_log_needed))})"
    cells = (
        line.metric,
        f"{share_words(report.canary_bad, report.canary_total)} {line.unit}",
        f"{share_words(report.stable_bad, report.stable_total)} {line.unit}",
        f"{evidence_words(report.harm_log_e, report.harm_log_needed)} (budget {percent_words(line.budget)})",
        safety,
        f"counted {report.phi:.2f} times" if report.phi > 1.0 else "",
    )
    return f"<tr{marked}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
