"""Reader of the Prometheus text format, for the samples that Envoy exposes.

https://prometheus.io/docs/instrumenting/exposition_formats/. Comments are skipped: types and help are of no use here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|$)')
_SAMPLE = re.compile(rf'({_NAME})\s*(?:\{{((?:[^"}}]|"(?:[^"\\]|\\.)*")*)\}})?\s*(\S+)(?:\s+-?\d+)?\s*')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class BadExposition(Exception):
    """The text is not in the format; the message names the line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: a metric's name, its labels and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


def parse(text: str) -> Iterator[Sample]:
    """All samples, in order. Raises BadExposition."""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(" \t\r")
        if not stripped or stripped.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(stripped)
        if match is None:
            raise BadExposition(f"line {number}: expected name{{labels}} value, received {stripped[:100]!r}")
        name, labels, value = match.groups()
        try:
            yield Sample(name, _labels(labels or ""), float(value))
        except ValueError as error:
            raise BadExposition(f"line {number}: {error}") from error


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        match = _LABEL.match(text, position)
        if match is None:
            raise ValueError(f'expected label="value", received {text[position : position + 50]!r}')
        labels[match[1]] = re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), match[2])
        position = match.end()
    return labels
