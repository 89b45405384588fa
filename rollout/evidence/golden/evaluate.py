"""Asks both versions every example of a golden set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc

from adapters.triton.inference import Answer, Inference, Target
from rollout.evidence.golden.batches import Batch
from rollout.evidence.golden.score import Marked
from rollout.evidence.labels import Label
from rollout.evidence.mirror.compare import row_labels

_ASK_S: Final = 30.0
_ABSENT: Final = frozenset({int(grpc.StatusCode.UNAVAILABLE.value[0]), int(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])})


class ServerAway(Exception):
    """The server did not answer: nothing is known of the version, try again."""


async def evaluate(
    batches: Iterable[Batch], *, inference: Inference, stable: Target, candidate: Target, label: str, batching: bool
) -> list[Marked]:
    """One `Marked` per example, in order. A version that refuses an example has failed on it. Raises ServerAway."""
    marked: list[Marked] = []
    for batch in batches:
        ours = await _labels(inference, batch, stable, label, batching)
        theirs = await _labels(inference, batch, candidate, label, batching)
        marked.extend(Marked(row.label, a, b) for row, a, b in zip(batch.rows, ours, theirs, strict=True))
    return marked


async def _labels(
    inference: Inference, batch: Batch, target: Target, label: str, batching: bool
) -> tuple[Label | None, ...]:
    answer = await inference.infer(batch.request, target, timeout_s=_ASK_S)
    if answer.status in _ABSENT:
        raise ServerAway(f"{target.name} gave no answer on the golden set: {answer.error}")
    return _read(answer, label, batching, len(batch.rows))


def _read(answer: Answer, label: str, batching: bool, rows: int) -> tuple[Label | None, ...]:
    output = next((tensor for tensor in answer.outputs if tensor.name == label), None)
    found = row_labels(output, batching=batching) if output is not None else ()
    return found if len(found) == rows else (None,) * rows
