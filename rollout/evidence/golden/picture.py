"""The result on a golden set as SVG: accuracy of both versions, over all and per true class.

Drawn for the operators' API, and from the journal for the rollout's report.
"""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Final

from rollout.evidence.golden.score import GoldenScore

_BARS: Final = 30
_WIDTH, _LEFT, _RIGHT, _ROW = 860, 230, 70, 34
_NAME: Final = 24
"""Characters of a class name that fit beside its bars."""
_STABLE, _CANDIDATE, _INK, _GREY = "#3b6ea8", "#d9822b", "#1f2933", "#6b7280"


def title(model: str, stable: int, candidate: int) -> str:
    return f"{model}: version {candidate} (candidate) and version {stable} (stable) on the golden set"


def picture(found: GoldenScore, title: str) -> str:
    """A drawing that stands by itself. Of more than 30 classes, those on which the versions differ most."""
    classes, shown = found.classes, ""
    if len(classes) > _BARS:
        by_difference = sorted(
            classes, key=lambda one: abs(one.stable_right - one.candidate_right) / one.examples, reverse=True
        )
        kept = {one.label for one in by_difference[:_BARS]}
        shown = f"Of {len(classes)} classes, the {_BARS} on which the versions differ most."
        classes = tuple(one for one in classes if one.label in kept)
    rows = [("all", found.examples, found.stable_right, found.candidate_right)]
    rows += [(one.label, one.examples, one.stable_right, one.candidate_right) for one in classes]
    parts: list[str] = []
    y = 8
    for line in wrap(title, 92):
        y += 20
        parts.append(_text(10, y, line, size=15))
    for line in [*wrap(found.words(), 122), *filter(None, [shown])]:
        y += 18
        parts.append(_text(10, y, line))
    y += 26
    parts.append(_text(10, y, "true class (examples)", colour=_GREY))
    parts.append(_text(_LEFT, y, "share of right answers", colour=_GREY))
    for x, colour, name in ((_LEFT + 170, _STABLE, "stable"), (_LEFT + 240, _CANDIDATE, "candidate")):
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 15, y, name))
    y += 12
    for label, examples, stable, candidate in rows:
        parts.append(_text(10, y + 16, f"{_short(label)} ({examples:,})"))
        parts.append(_bar(y, stable / examples, _STABLE))
        parts.append(_bar(y + 13, candidate / examples, _CANDIDATE))
        y += _ROW
    frame = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 6}" viewBox="0 0 {_WIDTH} {y + 6}" '
        'role="img" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([frame, f'<rect width="{_WIDTH}" height="{y + 6}" fill="#ffffff"/>', *parts, "</svg>\n"])


def _short(name: str) -> str:
    """Both ends of a long name: class names often begin or end alike, seldom both."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-(_NAME // 2 - 1) :]}"


def _bar(y: int, share: float, colour: str) -> str:
    width = (_WIDTH - _LEFT - _RIGHT) * share
    return (
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="11" fill="{colour}"/>'
        f"{_text(_LEFT + width + 6, y + 10, f'{100 * share:.1f} %')}"
    )


def _text(x: float, y: float, words: str, *, size: int = 12, colour: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escape(words)}</text>'
