"""Reads a golden file: JSON lines `{"inputs": {"x": [...]}, "label": 3}`, or a NumPy `.npz` of the inputs and `label`.

Everything wrong with it is told by line. Whether the rows fit a model is `rollout.evidence.golden.batches`' question.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np

from rollout.evidence.labels import Label

MAX_ROWS: Final = 100_000
"""More would hold up a rollout for minutes and prove nothing more."""

_TOLD: Final = 10
_NPZ_MAGIC: Final = b"PK"


class BadGoldenFile(ValueError):
    """The file is no golden set; `problems` say what is wrong in which line."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        super().__init__("the golden set cannot be used: " + "; ".join(problems[:_TOLD]) + more)


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """One example. `line` counts from 1. `inputs` are values as JSON has them, without the batch dimension."""

    line: int
    inputs: Mapping[str, Any]
    label: Label


def read_golden(data: bytes) -> tuple[GoldenRow, ...]:
    """Raises BadGoldenFile."""
    return _npz(data) if data.startswith(_NPZ_MAGIC) else _json_lines(data)


def _json_lines(data: bytes) -> tuple[GoldenRow, ...]:
    rows: list[GoldenRow] = []
    problems: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(number, line))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        if len(rows) > MAX_ROWS:
            problems.append(f"line {number}: more than {MAX_ROWS:,} examples")
            break
    if not rows and not problems:
        problems.append("it has no examples")
    if problems:
        raise BadGoldenFile(tuple(problems))
    return tuple(rows)


def _row(number: int, line: bytes) -> GoldenRow:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(value, dict) or set(value) != {"inputs", "label"}:
        received = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f'expected {{"inputs": {{...}}, "label": ...}}, received {received}')
    inputs, label = value["inputs"], value["label"]
    if not isinstance(inputs, dict) or not inputs:
        raise ValueError("inputs: expected an object of tensors by name")
    if isinstance(label, bool | int | float | str):
        return GoldenRow(number, inputs, label)
    raise ValueError(f"label: expected a text, number or boolean, received {label!r:.40}")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _npz(data: bytes) -> tuple[GoldenRow, ...]:
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BadGoldenFile((f"not a NumPy .npz file ({error})",)) from error
    problems = tuple(_npz_problems(columns))
    if problems:
        raise BadGoldenFile(problems)
    labels = columns.pop("label").reshape(-1).tolist()
    rows = {name: column.tolist() for name, column in columns.items()}
    return tuple(
        GoldenRow(index + 1, {name: values[index] for name, values in rows.items()}, label)
        for index, label in enumerate(labels)
    )


def _npz_problems(columns: Mapping[str, Any]) -> Iterator[str]:
    if "label" not in columns or len(columns) < 2:
        yield f"expected the arrays of the inputs and one named label, received {sorted(columns)}"
        return
    lengths = {name: column.shape[0] if column.ndim else 0 for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        yield f"the arrays have different lengths: {lengths}"
    elif not 0 < lengths["label"] <= MAX_ROWS:
        yield f"expected 1 to {MAX_ROWS:,} examples, received {lengths['label']:,}"
    if math.prod(columns["label"].shape) != lengths["label"]:
        yield f"label: expected one per example, received shape {list(columns['label'].shape)}"
    for name, column in columns.items():
        if column.dtype.kind not in "biufU":
            yield f"{name}: expected numbers, booleans or text, received {column.dtype}"
