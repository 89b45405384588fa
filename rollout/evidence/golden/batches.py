"""Golden rows as requests of a model: values become tensors of the signature, rows of one shape share a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from adapters.sample import NUMPY, Array
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.inference import InferRequest, Tensor
from rollout.evidence.golden.file import BadGoldenFile, GoldenRow

MOST_ROWS: Final = 32
"""Rows in one request, where the model takes as many: live requests wait behind it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are asked at once."""

    rows: tuple[GoldenRow, ...]
    request: InferRequest


def batches(rows: Sequence[GoldenRow], signature: Signature) -> Iterator[Batch]:
    """All rows in order. Raises BadGoldenFile, before the first batch, with every row that does not fit."""
    prepared: list[tuple[GoldenRow, dict[str, Array]]] = []
    problems: list[str] = []
    for row in rows:
        try:
            prepared.append((row, _arrays(row, signature)))
        except ValueError as error:
            problems.append(f"line {row.line}: {error}")
    if problems:
        raise BadGoldenFile(tuple(problems))
    most = min(MOST_ROWS, signature.max_batch_size) if signature.batching else 1
    group: list[tuple[GoldenRow, dict[str, Array]]] = []
    for one in prepared:
        if group and (len(group) == most or _shapes(group[0][1]) != _shapes(one[1])):
            yield _batch(group, signature)
            group = []
        group.append(one)
    if group:
        yield _batch(group, signature)


def _batch(group: Sequence[tuple[GoldenRow, dict[str, Array]]], signature: Signature) -> Batch:
    specs = [spec for spec in signature.inputs if spec.name in group[0][1]]
    tensors = [
        Tensor(
            spec.name,
            spec.datatype.value,
            np.stack([arrays[spec.name] for _, arrays in group]) if signature.batching else group[0][1][spec.name],
        )
        for spec in specs
    ]
    return Batch(tuple(row for row, _ in group), InferRequest.of(tensors))


def _shapes(arrays: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _arrays(row: GoldenRow, signature: Signature) -> dict[str, Array]:
    known = {spec.name for spec in signature.inputs}
    unknown = sorted(set(row.inputs) - known)
    if unknown:
        raise ValueError(f"inputs.{unknown[0]}: unknown; the model takes {', '.join(sorted(known))}")
    missing = [spec.name for spec in signature.inputs if not spec.optional and spec.name not in row.inputs]
    if missing:
        raise ValueError(f"inputs.{missing[0]}: missing")
    return {spec.name: _array(spec, row.inputs[spec.name]) for spec in signature.inputs if spec.name in row.inputs}


def _array(spec: TensorSpec, value: Any) -> Array:
    where = f"inputs.{spec.name}"
    try:
        array = np.asarray(value, np.object_ if spec.datatype is Datatype.BYTES else None)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: rows of different lengths, or a number out of range") from error
    array = _typed(where, spec.datatype, array)
    if len(array.shape) != len(spec.shape) and array.size == _size(spec):
        array = array.reshape(spec.shape)
    if len(array.shape) != len(spec.shape) or any(
        wanted not in (DYNAMIC, given) for wanted, given in zip(spec.shape, array.shape, strict=True)
    ):
        raise ValueError(f"{where}: expected shape {list(spec.shape)}, received {list(array.shape)}")
    return array


def _size(spec: TensorSpec) -> int:
    return -1 if DYNAMIC in spec.shape else int(np.prod(spec.shape, dtype=np.int64))


def _typed(where: str, datatype: Datatype, array: Array) -> Array:
    if datatype is Datatype.BYTES:
        if not all(isinstance(item, str) for item in array.flat):
            raise ValueError(f"{where}: expected text")
        texts = np.empty(array.size, np.object_)
        texts[:] = [item.encode() for item in array.flat]
        return texts.reshape(array.shape)
    kind = np.dtype(NUMPY[datatype]) if datatype is not Datatype.BF16 else np.dtype(np.float32)
    if array.size == 0:
        return array.astype(kind)
    if kind.kind == "b":
        allowed = "b"
    elif kind.kind == "f":
        allowed = "iuf"
    else:
        allowed = "iu"
    if array.dtype.kind not in allowed:
        raise ValueError(f"{where}: expected {datatype.value}, received {array.dtype}")
    if kind.kind in "iu":
        limits = np.iinfo(kind.name)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise ValueError(f"{where}: expected {limits.min} to {limits.max} for {datatype.value}")
    return array.astype(kind)
