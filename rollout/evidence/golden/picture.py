"""The result on a golden set as SVG: accuracy of both versions, over all and per true class."""

from __future__ import annotations

from html import escape
from typing import Final

from rollout.evidence.golden.score import GoldenScore

_BARS: Final = 30
_WIDTH, _LEFT, _ROW = 640, 150, 34
_STABLE, _CANDIDATE = "#5b7083", "#d9822b"


def title(model: str, stable: int, candidate: int) -> str:
    return f"{model}: version {candidate} and version {stable} on the golden set"


def picture(found: GoldenScore, title: str) -> str:
    """A drawing that stands by itself. Of more than 30 classes, those on which the versions differ most."""
    classes = found.classes
    if len(classes) > _BARS:
        by_difference = sorted(
            classes, key=lambda one: abs(one.stable_right - one.candidate_right) / one.examples, reverse=True
        )
        kept = {one.label for one in by_difference[:_BARS]}
        classes = tuple(one for one in classes if one.label in kept)
    rows = [("all", found.examples, found.stable_right, found.candidate_right)]
    rows += [(one.label, one.examples, one.stable_right, one.candidate_right) for one in classes]
    height = 90 + _ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(10, 22, title, size=15),
        _text(10, 42, found.words()),
        f'<rect x="10" y="52" width="10" height="10" fill="{_STABLE}"/>{_text(24, 61, "stable")}',
        f'<rect x="84" y="52" width="10" height="10" fill="{_CANDIDATE}"/>{_text(98, 61, "candidate")}',
    ]
    for index, (label, examples, stable, candidate) in enumerate(rows):
        y = 76 + index * _ROW
        parts.append(_text(10, y + 16, f"{label[:14]} ({examples})"))
        parts.append(_bar(y, stable / examples, _STABLE))
        parts.append(_bar(y + 13, candidate / examples, _CANDIDATE))
    return "\n".join([*parts, "</svg>\n"])


def _bar(y: int, share: float, colour: str) -> str:
    width = (_WIDTH - _LEFT - 60) * share
    return (
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="11" fill="{colour}"/>'
        f"{_text(_LEFT + width + 6, y + 10, f'{share:.1%}')}"
    )


def _text(x: float, y: float, words: str, *, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="#1f2933">{escape(words)}</text>'
