"""What a prediction gives back, the same over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of one call.

    `rows` holds one mapping from output name to value per instance; a model that does not batch gives one row.
    `version` is the model's version that answered; `request_id` names the call for `Client.feedback`.
    """

    rows: tuple[Mapping[str, Any], ...]
    batched: bool
    model: str
    version: int
    request_id: str

    @property
    def row(self) -> Mapping[str, Any]:
        """The only row. Raises ValueError when there are several."""
        if len(self.rows) != 1:
            raise ValueError(f"this answer of {self.model!r} has {len(self.rows)} rows: use .rows")
        return self.rows[0]

    def array(self, output: str, dtype: DTypeLike = None) -> NDArray[np.generic]:
        """One output of all rows as a numpy array, rows first (a model that does not batch has no such dimension).

        Over gRPC, UINT8 and INT8 outputs are bytes: say which of the two, array("mask", np.uint8).
        """
        if self.batched:
            return np.asarray([array_of(row[output], dtype) for row in self.rows], dtype)
        return array_of(self.row[output], dtype)


def array_of(value: Any, dtype: DTypeLike = None) -> NDArray[Any]:
    """An output's value as a numpy array; bytes are elements where `dtype` is of one byte, UINT8 or INT8."""
    if isinstance(value, bytes) and dtype is not None and np.dtype(dtype) in (np.uint8, np.int8):
        return np.frombuffer(value, dtype)
    return np.asarray(value, dtype)


def rows_of(**columns: ArrayLike) -> Sequence[Mapping[str, Any]]:
    """Arrays with rows first, one per input, as the rows that `predict` takes: rows_of(x=batch).

    Raises ValueError when they disagree about the number of rows.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"expected as many rows in each input, received {counts}")
    return [dict(zip(arrays, values, strict=True)) for values in zip(*arrays.values(), strict=True)]
