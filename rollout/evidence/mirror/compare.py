"""Two versions' answers to one question, compared: labels, numbers, schema. Pure.

The label is read as `label.lua` reads it for the access log: one value per row is the label itself, of a vector per row
it is the index of the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adapters.sample import Array
from adapters.triton.inference import Tensor
from rollout.evidence.labels import Label, same_label
from rollout.evidence.mirror.wire import Pair

FARTHEST = 1e12
"""What stands for an infinite difference, so that sums stay numbers."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`distance` is the largest difference of the numeric outputs in tolerances; None without any to compare.

    `labels` are stable's and the candidate's per row; None where the model has none.
    """

    agreed: bool
    same_schema: bool
    distance: float | None
    labels: tuple[tuple[Label, ...], tuple[Label, ...]] | None


def compare(pair: Pair, stable: Sequence[Tensor], candidate: Sequence[Tensor]) -> Comparison:
    """Agreement is of the labels; of all outputs for a model without a label."""
    ours, theirs = {t.name: t for t in stable}, {t.name: t for t in candidate}
    same_schema = _schema(ours) == _schema(theirs)
    labels = _labels(pair, ours, theirs)
    distances = [_distance(pair, ours[n], theirs[n]) for n in ours if n in theirs and n != pair.label]
    known = [distance for distance in distances if distance is not None]
    if labels is not None:
        agreed = len(labels[0]) == len(labels[1]) and all(map(same_label, *labels))
    else:
        agreed = same_schema and all(distance is not None and distance <= 1.0 for distance in distances)
    return Comparison(agreed and same_schema, same_schema, max(known, default=None), labels)


def row_labels(tensor: Tensor, *, batching: bool) -> tuple[Label, ...]:
    """The predicted label of each row."""
    values = tensor.values
    rows = values.shape[0] if batching and values.ndim else 1
    if rows == 0 or values.size % rows or values.size == 0:
        return ()
    table = values.reshape(rows, -1)
    if table.shape[1] == 1:
        return tuple(_plain(value) for value in table[:, 0].tolist())
    if table.dtype == np.object_:
        return ()
    numbers = table.astype(np.float64)
    return tuple(int(i) for i in np.argmax(np.where(np.isnan(numbers), -np.inf, numbers), axis=1))


def _labels(
    pair: Pair, stable: Mapping[str, Tensor], candidate: Mapping[str, Tensor]
) -> tuple[tuple[Label, ...], tuple[Label, ...]] | None:
    if not pair.label or pair.label not in stable or pair.label not in candidate:
        return None
    return (
        row_labels(stable[pair.label], batching=pair.batching),
        row_labels(candidate[pair.label], batching=pair.batching),
    )


def _schema(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.datatype, tensor.shape) for name, tensor in tensors.items()}


def _distance(pair: Pair, stable: Tensor, candidate: Tensor) -> float | None:
    """In tolerances; None where the shapes cannot be compared. Text is equal or infinitely far."""
    a, b = stable.values, candidate.values
    if a.shape != b.shape:
        return None
    if a.size == 0:
        return 0.0
    if a.dtype == np.object_ or b.dtype == np.object_:
        return 0.0 if bool(np.all(a == b)) else FARTHEST
    return _numeric_distance(a.astype(np.float64), b.astype(np.float64), pair)


def _numeric_distance(a: Array, b: Array, pair: Pair) -> float:
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        # Equal infinities and two NaNs are the same answer; one of them alone is not.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        tolerance = pair.absolute + pair.relative * np.abs(a)
        far = np.where(same, 0.0, np.abs(a - b) / tolerance)
        far = np.where(np.isnan(far), FARTHEST, far)
    return min(float(np.max(far)), FARTHEST)


def _plain(value: object) -> Label:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float) else str(value)
