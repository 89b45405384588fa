"""Recorded examples: what load tests send, and what the true answer was.

A file of JSON lines, each `{"instance": {"<input>": ...}, "label": ...}` with the inputs as the typed JSON API takes
them; `label` may be left out. A golden set of a rollout is such a file too, with `inputs` for `instance`. Read by the
Locust users; written by whoever has the data (`loadtest.demo.digits`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadExamples(Exception):
    """The file cannot be used; the message names the line and what was expected there."""


@dataclass(frozen=True, slots=True)
class Example:
    """One instance for the typed API; `label` is None where the truth is unknown."""

    instance: Mapping[str, Any]
    label: int | str | None


def read_examples(path: Path) -> tuple[Example, ...]:
    """Every example of the file, in order. Raises BadExamples."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadExamples(f"{path}: cannot be read: {error.strerror}") from error
    examples = tuple(_parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip())
    if not examples:
        raise BadExamples(f"{path}: expected one JSON object per line, received an empty file")
    return examples


def _parse(line: str, where: str) -> Example:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise BadExamples(f"{where}: not JSON: {error}") from error
    instance = value.get("instance", value.get("inputs")) if isinstance(value, dict) else None
    if not isinstance(instance, dict) or not instance:
        raise BadExamples(f'{where}: expected {{"instance": {{"<input>": ...}}, "label": ...}}')
    label = value.get("label")
    if isinstance(label, bool) or not isinstance(label, int | str | None):
        raise BadExamples(f"{where}: label: expected an integer or a string, received {label!r}")
    return Example(instance, label)
