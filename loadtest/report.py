"""The report of a load test: one HTML file that needs nothing else, for a desk and a phone, light and dark. Pure.

The page is `templates/report.html`; figures come from `loadtest.figures`, charts from `loadtest.charts`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loadtest.charts import (
    Line,
    latency_scale,
    linear_scale,
    number,
    percentile_chart,
    percentile_points,
    time_chart,
    time_label,
)
from loadtest.conclusion import Conclusion
from loadtest.figures import Figures, Group, Series
from loadtest.objectives import PERCENTILES

_CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with what it shows, as a title and a sentence."""

    title: str
    says: str
    html: Markup


def report_html(figures: Figures, conclusion: Conclusion) -> str:
    """The whole page."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    templates.filters |= {
        "ms": milliseconds,
        "number": number,
        "options": _options,
        "share": lambda part: f"{part:.3%}",
    }
    return templates.get_template("report.html").render(
        figures=figures,
        plan=figures.record.plan,
        record=figures.record,
        conclusion=conclusion,
        charts=charts(figures),
        percentiles=PERCENTILES,
        generator=figures.generator(),
        generator_charts=generator_charts(figures),
        events=[(time_label(round(event.second), figures.record.seconds), event.what) for event in figures.events()],
        plateaus=figures.plateaus(),
        duration=time_label(round(figures.record.seconds), figures.record.seconds),
    )


def charts(figures: Figures) -> tuple[Chart, ...]:
    """Answers over time, latency over time and by percentile if there were any, and failures if there were any."""
    answered = figures.latencies.total > 0
    return (
        *([_latency_chart(figures)] if answered else []),
        _answers_chart(figures),
        *([_failures_chart(figures)] if figures.failed else []),
        *([_percentile_chart(figures)] if answered else []),
    )


def generator_charts(figures: Figures) -> tuple[Chart, ...]:
    """How late the generator was, where requests were due at instants, and what CPU it used."""
    lag, cpu = figures.lag_over_time(), figures.cpu_over_time()
    late = Chart(
        "Sent late", "p99 of how late requests left by the generator's own fault.", _over_time(figures, [lag], "ms")
    )
    used = Chart(
        "CPU of the sending thread",
        "Share of one core, of the busiest process; near 100 % the generator is the limit.",
        _over_time(figures, [cpu], "%", at_least=100.0),
    )
    return (used,) if figures.record.plan.closed else (late, used)


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _options(words: str) -> Markup:
    """Command line options in a sentence as code, which no line break cuts."""
    return Markup(re.sub(r"(--[a-z-]+)", r"<code>\1</code>", str(escape(words))))


def _latency_chart(figures: Figures) -> Chart:
    median, tail = figures.latency_over_time(0.5), figures.latency_over_time(0.99)
    lines = []
    for colour, (p50, p99) in enumerate(zip(median, tail, strict=True)):
        if _drawn(p99):
            lines.append(Line(Series(f"{p99.name}, p99", p99.points), colour))
            lines.append(Line(Series(f"{p50.name}, p50", p50.points), colour, "thin"))
    html = time_chart(
        lines,
        scale=latency_scale(_values(line.series for line in lines)),
        unit="ms",
        seconds=figures.record.seconds,
        interval_s=figures.interval_s,
        events=[(event.second, event.what) for event in figures.events()],
    )
    return Chart("Latency", "By version, from the instant the request was due to its last byte.", Markup(html))


def _answers_chart(figures: Figures) -> Chart:
    answers = figures.answers_over_time()
    colours = {f"version {version}": index for index, version in enumerate(figures.versions)}
    names = {version.name: index for index, version in enumerate(figures.latency_over_time(0.5))}
    lines = [Line(series, names.get(series.name, colours.get(series.name))) for series in answers]
    if not figures.record.plan.closed:
        lines.append(Line(figures.due_over_time(), None, "due"))
    html = time_chart(
        lines,
        scale=linear_scale(max(_values(line.series for line in lines), default=1.0)),
        unit="answers/s",
        seconds=figures.record.seconds,
        interval_s=figures.interval_s,
        events=[(event.second, event.what) for event in figures.events()],
    )
    return Chart("Throughput", "Successful answers per second by version; dashed: what was due.", Markup(html))


def _failures_chart(figures: Figures) -> Chart:
    html = _over_time(figures, figures.failures_over_time(), "failures/s")
    return Chart("Failures", "Failed requests per second by reason.", html)


def _percentile_chart(figures: Figures) -> Chart:
    lines = []
    for colour, group in enumerate(figures.by_version()):
        if group.latencies.total:
            lines.append(Line(Series(group.name, percentile_points(_curve(group))), colour))
    html = percentile_chart(lines, scale=latency_scale(_values(line.series for line in lines)), unit="ms")
    return Chart(
        "Percentiles",
        "Latency that so many of 100 answers did not exceed; each step right is ten times rarer.",
        Markup(html),
    )


def _curve(group: Group) -> list[tuple[float, float]]:
    """Percentiles as far as the count of answers can tell them: p99.9 needs a thousand."""
    total = group.latencies.total
    known = [p for p in _CURVE if p < 100 * (1 - 1 / total) or p <= 50]
    return [(p, value) for p in known if (value := group.latencies.quantile_ms(p / 100)) is not None]


def _over_time(figures: Figures, series: Sequence[Series], unit: str, at_least: float = 0.0) -> Markup:
    lines = [Line(one, colour) for colour, one in enumerate(series)]
    html = time_chart(
        lines,
        scale=linear_scale(max(max(_values(series), default=1.0), at_least)),
        unit=unit,
        seconds=figures.record.seconds,
        interval_s=figures.interval_s,
    )
    return Markup(html)


def _drawn(series: Series) -> bool:
    return any(value is not None for _, value in series.points)


def _values(series: Iterable[Series]) -> list[float]:
    return [value for one in series for _, value in one.points if value is not None and math.isfinite(value)]
