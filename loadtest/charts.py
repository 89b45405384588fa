"""Charts as HTML that needs nothing else: lines in an inline SVG that stretches, labels as text that does not.

The SVG has no aspect ratio of its own and strokes that do not scale, so that one chart is sharp and readable on a desk
and on a phone; ticks, units and markers are HTML placed in percent of the plot. Colours are CSS classes (`c0`, `c1`,
...) that the page defines for light and dark. The values lie in `data-chart` for the page's pointer script. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loadtest.figures import Series

COLOURS = 6
"""Different colours that the page defines; a line beyond them is grey."""

CLOSE = 0.05
"""Events nearer than this share of the chart's width are marked as one."""

EDGE = 0.03
"""Labels nearer than this share of the chart's width to an end of it are aligned with that end."""

LOG_FROM = 20.0
"""Latencies whose largest is this many times the smallest are drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `style` is of the page's CSS: solid, `thin`, or `due` (grey, dashed); `colour` an index or None."""

    series: Series
    colour: int | None
    style: str = "solid"


@dataclass(frozen=True, slots=True)
class Scale:
    """Positions (0..1) of values on an axis, with the ticks to be labelled."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            place = (math.log10(max(value, self.low)) - low) / (high - low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))


def linear_scale(high: float, *, ticks: int = 4) -> Scale:
    """From 0 to a round number that is not below `high`."""
    step = _round_step((high or 1.0) / ticks)
    count = max(1, math.ceil((high or 1.0) / step - 1e-9))
    return Scale(0.0, step * count, False, tuple(step * i for i in range(count + 1)))


def latency_scale(values: Sequence[float]) -> Scale:
    """Logarithmic where the values span much, else linear from 0."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) < LOG_FROM * min(positive):
        return linear_scale(max(positive, default=1.0))
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 1e-9)
    marks = (1,) if high - low > 3 else (1, 3)
    ticks = [mark * 10.0**power for power in range(low, high) for mark in marks]
    low_edge = max(tick for tick in ticks if tick <= min(positive))
    high_edge = min((tick for tick in [*ticks, 10.0**high] if tick >= max(positive)), default=10.0**high)
    return Scale(low_edge, high_edge, True, tuple(t for t in [*ticks, 10.0**high] if low_edge <= t <= high_edge))


def time_chart(
    lines: Sequence[Line],
    *,
    scale: Scale,
    unit: str,
    seconds: float,
    interval_s: float,
    events: Sequence[tuple[float, str]] = (),
) -> str:
    """Lines over the seconds of a test. `events` are vertical marks, numbered as the page lists them."""
    across = linear_time_scale(seconds)
    marks = _marks([across.at(second) for second, _ in events])
    return _chart(
        lines, across, scale, unit, [(t, time_label(t, across.high)) for t in across.ticks], marks, interval_s
    )


def percentile_chart(lines: Sequence[Line], *, scale: Scale, unit: str) -> str:
    """Latency by percentile; each nine has the same width, as tails are what is looked for."""
    nines = (50.0, 90.0, 99.0, 99.9, 99.99)
    across = Scale(0.0, 4.0, False, ())
    ticks = [(_nines(p), f"p{p:g}") for p in nines]
    return _chart(lines, across, scale, unit, ticks, (), 0.0)


def percentile_points(quantile_ms: Sequence[tuple[float, float]]) -> tuple[tuple[float, float | None], ...]:
    """(percentile, milliseconds) as points of `percentile_chart`."""
    return tuple((_nines(percentile), value) for percentile, value in quantile_ms)


def linear_time_scale(seconds: float) -> Scale:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((s for s in steps if seconds / s <= 6), steps[-1])
    high = max(seconds, 1.0)
    return Scale(0.0, high, False, tuple(float(at) for at in range(0, int(high) + 1, step)))


def time_label(second: float, whole: float) -> str:
    if whole < 180:
        return f"{second:g} s"
    minutes, rest = divmod(int(second), 60)
    return f"{minutes}:{rest:02}" if whole < 7200 else f"{minutes // 60}:{minutes % 60:02} h"


def number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _marks(places: Sequence[float]) -> list[tuple[float, str]]:
    """The numbers of events at their places (0..1); neighbours that would print over each other share one, 2-4."""
    marks: list[tuple[float, int, int]] = []
    for number, place in enumerate(places, 1):
        if marks and place - marks[-1][0] < CLOSE:
            marks[-1] = (marks[-1][0], marks[-1][1], number)
        else:
            marks.append((place, number, number))
    return [(place, f"{first}" if first == last else f"{first}-{last}") for place, first, last in marks]


def _chart(
    lines: Sequence[Line],
    across: Scale,
    up: Scale,
    unit: str,
    ticks: Sequence[tuple[float, str]],
    marks: Sequence[tuple[float, str]],
    interval_s: float,
) -> str:
    grid = "".join(f'<line x1="0" x2="1000" y1="{y}" y2="{y}" class="grid"/>' for y in (_y(up, t) for t in up.ticks))
    places = [f"{x * 1000:.1f}" for x, _ in marks]
    verticals = "".join(f'<line x1="{x}" x2="{x}" y1="0" y2="1000" class="mark"/>' for x in places)
    paths = "".join(_path(line, across, up) for line in lines)
    left = "".join(f'<span style="bottom:{up.at(t) * 100:.2f}%">{number(t)}</span>' for t in up.ticks)
    below = "".join(_below(across.at(t), text) for t, text in ticks)
    numbers = "".join(f'<b style="left:{x * 100:.2f}%">{text}</b>' for x, text in marks)
    data = {
        "x": [across.low, across.high],
        "interval": interval_s,
        "unit": unit,
        "lines": [
            {
                "name": line.series.name,
                "class": _class(line),
                "points": [[x, None if y is None else float(f"{y:.4g}")] for x, y in line.series.points],
            }
            for line in lines
        ],
    }
    legend = "".join(f'<span class="{_class(line)}"><i></i>{escape(line.series.name)}</span>' for line in lines)
    axis = f"{unit}, logarithmic" if up.log else unit
    return (
        f'<div class="legend">{legend}</div><div class="chart" data-chart="{escape(json.dumps(data), quote=True)}">'
        f'<div class="unit">{axis}</div><div class="left">{left}</div><div class="plot">'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{escape(axis)}">'
        f'{grid}{verticals}{paths}</svg><div class="marks">{numbers}</div><div class="cursor" hidden></div></div>'
        f'<div class="below">{below}</div></div>'
    )


def _below(place: float, text: str) -> str:
    """A label under the axis, centred on its place but where that would leave the chart."""
    side = "start" if place < EDGE else "end" if place > 1 - EDGE else "middle"
    return f'<span class="{side}" style="left:{place * 100:.2f}%">{escape(text)}</span>'


def _path(line: Line, across: Scale, up: Scale) -> str:
    """An SVG path; a None interrupts it, a lone point becomes a dot."""
    pieces: list[list[str]] = [[]]
    for x, value in line.series.points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{across.at(x) * 1000:.1f} {_y(up, value)}")
    # A line to itself is drawn as a dot by a round cap.
    parts = ["M" + "L".join(piece if len(piece) > 1 else piece * 2) for piece in pieces if piece]
    return f'<path d="{"".join(parts)}" class="line {_class(line)}"/>' if parts else ""


def _class(line: Line) -> str:
    colour = "grey" if line.colour is None or line.colour >= COLOURS else f"c{line.colour}"
    return f"{colour} {line.style}"


def _y(up: Scale, value: float) -> str:
    return f"{(1 - up.at(value)) * 1000:.1f}"


def _nines(percentile: float) -> float:
    """0 -> 0, 90 -> 1, 99 -> 2, 99.9 -> 3, at most 4."""
    return min(4.0, -math.log10(max(1e-9, 1 - percentile / 100)))


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(mark * power for mark in (1, 2, 2.5, 5, 10) if mark * power >= step * (1 - 1e-9))
