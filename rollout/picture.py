"""The picture of a rollout: weights, evidence, errors and latency over time, with what happened. PNG or SVG.

Made from `rollout.chronicle` by `penstock rollout report`. Nothing here knows a screen: matplotlib draws into memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from enum import StrEnum

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from rollout.chronicle import Change, Chronicle, Point, Sample
from rollout.machine import Event, State
from rollout.ports import FULL_WEIGHT

STABLE_COLOUR, CANDIDATE_COLOUR = "#3b6ea8", "#d9822b"
_METRIC_COLOURS = ("#8c3b3b", "#6a51a3", "#2b7a5d", "#a6761d", "#555555", "#1f78b4", "#b2447f", "#4d4d00")
_ENDS = {
    State.PROMOTED: ("promoted", "#2b7a2b"),
    State.ROLLED_BACK: ("rolled back", "#b03030"),
    State.ABORTED: ("aborted", "#b07a30"),
    State.FAILED: ("failed", "#b03030"),
}
_BEATS_S = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_LINES = frozenset({State.SHADOW, State.GATE, State.STEP, State.BAKING, State.PAUSED, State.PROMOTING, State.PROMOTED})
"""States whose beginning is marked through all panels."""


_CHARACTER = 0.0085
"""Width of a character of a label, as a part of the panel."""


class Form(StrEnum):
    PNG = "png"
    SVG = "svg"


def picture(told: Chronicle, form: Form) -> bytes:
    """The file's content. SVG keeps text as text, so that it can be searched and read aloud."""
    parts = [_weights, *(_judged(told) if told.points else ())]
    height = 1.9 * max(len(parts), 2)
    figure = Figure(figsize=(11.0, height), facecolor="white")
    # Fixed, because matplotlib's own layouts differ in the last digit from run to run.
    place = {"left": 0.08, "right": 0.94, "top": 1.0 - 0.8 / height, "bottom": 0.6 / height, "hspace": 0.28}
    panels: Sequence[Axes] = list(figure.subplots(len(parts), 1, sharex=True, squeeze=False, gridspec_kw=place)[:, 0])
    for part, panel in zip(parts, panels, strict=True):
        part(panel, told)
    for panel in panels:
        _marks(panel, told.changes)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.margins(x=0.01)
        panel.yaxis.set_label_coords(-0.052, 0.5)
    panels[-1].xaxis.set_major_locator(MultipleLocator(_beat(told.seconds)))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _clock(seconds)))
    panels[-1].set_xlabel("time since the rollout was created, minutes:seconds")
    row = told.row
    ending, colour = _ENDS.get(row.state, (row.state.value.replace("_", " "), "#333333"))
    figure.suptitle(
        f"Rollout {row.id}: {row.model} from version {row.stable} to {row.candidate}, {ending} "
        f"after {_clock(_decided_s(told))}",
        color=colour,
        fontsize=13,
        fontweight="bold",
        y=1.0 - 0.15 / height,
    )
    return _written(figure, form)


def _judged(told: Chronicle) -> Sequence[Callable[[Axes, Chronicle], None]]:
    """Panels of what was seen; a rollout that ended before its first tick has none."""
    labelled = any(_labelled(point) for point in told.points)
    return (_harm, _safety, _errors, *([_wrong] if labelled else []), _latency)


def _written(figure: Figure, form: Form) -> bytes:
    into = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "penstock"}):
        figure.savefig(into, format=form.value, dpi=150, metadata={"Date": None} if form is Form.SVG else None)
    return into.getvalue()


def _weights(axes: Axes, told: Chronicle) -> None:
    times = [change.after_s for change in told.changes]
    weights = [change.weight_bp * 100.0 / FULL_WEIGHT for change in told.changes]
    end = max(told.seconds, 1.0)
    axes.fill_between([*times, end], [*weights, *weights[-1:]], step="post", color=CANDIDATE_COLOUR, alpha=0.3)
    axes.step([*times, end], [*weights, *weights[-1:]], where="post", color=CANDIDATE_COLOUR, linewidth=1.8)
    axes.set_ylim(0, 112)
    axes.set_ylabel(f"version {told.row.candidate}'s\nshare of traffic, %")
    for begin, finish in _shadows(told):
        axes.axvspan(begin, finish, color="#888888", alpha=0.18, linewidth=0)
        axes.text((begin + finish) / 2, 6, "shadow", ha="center", fontsize=8, color="#555555")
    _labels(axes, told.changes, end)


def _shadows(told: Chronicle) -> list[tuple[float, float]]:
    following = [*told.changes[1:], None]
    return [
        (change.after_s, told.seconds if later is None else later.after_s)
        for change, later in zip(told.changes, following, strict=True)
        if change.mirrored
    ]


def _labels(axes: Axes, changes: Sequence[Change], end: float) -> None:
    """Names of what happened, above the curve, the end in a row of its own; those for which there is no room are left
    to the text."""
    taken = -end
    for change in changes:
        ended, name = change.state in _ENDS or change.state is State.ROLLING_BACK, _name(change)
        if change.state is State.PROMOTING or not (ended or change.state in _LINES):
            continue  # The end of a promotion is the next thing to happen, at once.
        width = len(name) * _CHARACTER * end
        at_right = change.after_s + width > end
        begin = change.after_s - width if at_right else change.after_s
        if not ended and begin < taken:
            continue
        taken = taken if ended else begin + width
        axes.annotate(
            name,
            (change.after_s, 115 if ended else 103),
            xytext=(-2 if at_right else 2, 0),
            ha="right" if at_right else "left",
            textcoords="offset points",
            annotation_clip=False,
            fontsize=8,
            color=_ENDS.get(change.state, ("", "#b03030" if ended else "#444444"))[1],
        )


def _name(change: Change) -> str:
    if change.state in (State.STEP, State.BAKING) and change.event not in (Event.NOT_READY, Event.READY):
        return f"{change.weight_bp / 100:g} %"
    if change.event in (Event.NOT_READY, Event.READY):
        return change.event.value.replace("_", " ")
    return change.state.value.replace("_", " ")


def _marks(axes: Axes, changes: Sequence[Change]) -> None:
    for change in changes:
        if change.state in _ENDS or change.state is State.ROLLING_BACK:
            axes.axvline(change.after_s, color=_ENDS.get(change.state, ("", "#b03030"))[1], linewidth=1.1)
        elif change.state in _LINES:
            axes.axvline(change.after_s, color="#bbbbbb", linewidth=0.8, linestyle=(0, (3, 2)))


def _harm(axes: Axes, told: Chronicle) -> None:
    _evidence(axes, told.points, "evidence of harm", lambda point: point.toward_rollback, "roll back")


def _safety(axes: Axes, told: Chronicle) -> None:
    _evidence(axes, told.points, "evidence of safety", lambda point: point.toward_advance, "enough")


def _evidence(axes: Axes, points: Sequence[Point], title: str, part: Callable[[Point], object], enough: str) -> None:
    times = [point.after_s for point in points]
    names = sorted({name for point in points for name in _parts(part(point))})
    for index, name in enumerate(names):
        values = [_parts(part(point)).get(name, float("nan")) for point in points]
        axes.plot(times, values, label=name, color=_METRIC_COLOURS[index % len(_METRIC_COLOURS)], linewidth=1.3)
    axes.axhline(1.0, color="#333333", linewidth=0.8, linestyle=":")
    axes.text(1.004, 1.0, enough, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color="#333333")
    axes.set_ylim(-0.03, 1.22)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel(f"{title},\n1 is enough")
    if names:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Above the panel, where no curve is."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.97), fontsize=8, ncols=9, frameon=False, borderaxespad=0.0)


def _parts(value: object) -> dict[str, float]:
    return dict(value) if isinstance(value, dict) else {}


def _errors(axes: Axes, told: Chronicle) -> None:
    _two(axes, told, lambda sample: None if sample.error_share is None else 100.0 * sample.error_share)
    axes.set_ylabel("failed requests, %")
    _from_zero(axes)
    _gaps(axes, told.points)


def _wrong(axes: Axes, told: Chronicle) -> None:
    _two(axes, told, lambda sample: None if sample.wrong_share is None else 100.0 * sample.wrong_share)
    axes.set_ylabel("labelled answers\nwrong, %")
    _from_zero(axes)
    _gaps(axes, told.points)


def _labelled(point: Point) -> bool:
    return point.stable.wrong_share is not None or point.candidate.wrong_share is not None


def _from_zero(axes: Axes) -> None:
    """A little below it, so that a curve at zero is seen."""
    top = max(axes.get_ylim()[1], 1.0 if axes.get_ylim()[1] < 0.1 else 0.0)
    axes.set_ylim(-0.03 * top, top)


def _latency(axes: Axes, told: Chronicle) -> None:
    _two(axes, told, lambda sample: None if sample.p50_us is None else sample.p50_us / 1000.0, suffix=" p50")
    _two(
        axes, told, lambda sample: None if sample.p99_us is None else sample.p99_us / 1000.0, suffix=" p99", dashed=True
    )
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _gaps(axes, told.points)


def _ms(us: float | None) -> float | None:
    return None if us is None else us / 1000.0


def _two(
    axes: Axes, told: Chronicle, value: Callable[[Sample], float | None], *, suffix: str = "", dashed: bool = False
) -> None:
    times = [point.after_s for point in told.points]
    for number, colour, samples in (
        (told.row.stable, STABLE_COLOUR, [point.stable for point in told.points]),
        (told.row.candidate, CANDIDATE_COLOUR, [point.candidate for point in told.points]),
    ):
        known = [value(sample) for sample in samples]
        heights = [float("nan") if height is None else height for height in known]
        axes.plot(
            times,
            heights,
            color=colour,
            linewidth=0.9 if dashed else 1.3,
            linestyle=(0, (2, 1)) if dashed else "-",
            label=f"version {number}{suffix}",
        )


def _gaps(axes: Axes, points: Sequence[Point]) -> None:
    """Where telemetry was missing; and the legend, which says so."""
    before, label = 0.0, "no telemetry"
    for point in points:
        if point.missing:
            axes.axvspan(before, point.after_s, color="#cc8888", alpha=0.25, linewidth=0, label=label)
            label = ""
        before = point.after_s
    _legend(axes)


def _decided_s(told: Chronicle) -> float:
    ends = [change.after_s for change in told.changes if change.state in _ENDS]
    return ends[0] if ends else told.seconds


def _beat(seconds: float) -> float:
    """The shortest round time that divides the rollout into at most a dozen parts."""
    return next((beat for beat in _BEATS_S if seconds / beat <= 12), _BEATS_S[-1] * max(1, round(seconds / 1e6)))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
