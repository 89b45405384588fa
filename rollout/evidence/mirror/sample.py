"""What was compared, kept on disk as Parquet: for warm-up, for labels that come late, for retraining.

Bounded and droppable: files rotate, the oldest go, and a row that finds no room (the disk is full, slow or read-only)
is counted and forgotten. Files are written beside the event loop, one at a time.

`pairs-*.parquet` has a row per compared request, `labels-*.parquet` the true labels that came after the row's file
was written; both name the request by its id (`read_sample` joins them).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from adapters.triton.inference import Answer, Tensor
from rollout.evidence.mirror.wire import LabelNews, Totals

_log = logging.getLogger(__name__)

BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Rows that wait in memory for their file; more are dropped while a file is being written."""

FLUSH_S: Final = 15.0
"""A row is on disk, or dropped, after this."""

_TENSORS = pa.list_(
    pa.struct(
        [("name", pa.string()), ("datatype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.binary())]
    )
)
PAIRS: Final = pa.schema(
    [
        ("request_id", pa.string()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("stable_version", pa.int32()),
        ("candidate_version", pa.int32()),
        ("inputs", _TENSORS),
        ("stable_outputs", _TENSORS),
        ("candidate_outputs", _TENSORS),
        ("stable_error", pa.string()),
        ("candidate_error", pa.string()),
        ("labels", pa.string()),
    ]
)
"""`data` are the contents as on the wire: little-endian, row-major. `labels` is JSON, row of the batch -> label."""

LABELS: Final = pa.schema([("request_id", pa.string()), ("row", pa.int32()), ("label", pa.string())])


@dataclass(frozen=True, slots=True)
class Row:
    """One compared request. `at` in seconds since the epoch."""

    request_id: str
    at: float
    line: str
    stable_version: int
    candidate_version: int
    inputs: tuple[Tensor, ...]
    stable: Answer
    candidate: Answer

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        tensors = (*self.inputs, *self.stable.outputs, *self.candidate.outputs)
        return 500 + sum(tensor.values.nbytes + 100 for tensor in tensors)


@dataclass(slots=True)
class Sample:
    """`max_bytes` bounds the folder; `totals` is where rows are counted."""

    folder: Path
    max_bytes: int
    totals: Totals
    buffer_bytes: int = BUFFER_BYTES
    _rows: list[Row] = field(default_factory=list)
    _size: int = 0
    _labels: list[LabelNews] = field(default_factory=list)
    _full: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, row: Row) -> None:
        """Take a row, or drop it. Never waits."""
        if self._size + row.size > self.buffer_bytes:
            self.totals.sample_dropped += 1
            return
        self._rows.append(row)
        self._size += row.size
        if self._size > self.buffer_bytes // 2:
            self._full.set()

    def label(self, labels: Sequence[LabelNews]) -> None:
        """Take true labels. Never waits."""
        self._labels.extend(labels[: max(0, 10_000 - len(self._labels))])

    async def run(self) -> None:
        """Write what was taken, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what was taken so far. Trouble is counted, never raised."""
        rows, self._rows = self._rows, []
        labels, self._labels = self._labels, []
        if not rows and not labels:
            return
        try:
            self.totals.sample_bytes = await asyncio.to_thread(self._write, rows, labels)
        except (OSError, pa.ArrowException) as error:
            self.totals.sample_dropped += len(rows)
            _log.warning("%d rows of the sample were not kept: %s", len(rows), error)
        else:
            self.totals.sample_rows += len(rows)
        # Only now: rows that are being written are in memory too.
        self._size = sum(row.size for row in self._rows)

    def _write(self, rows: Sequence[Row], labels: Sequence[LabelNews]) -> int:
        """Bytes that the folder holds afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        by_request: dict[str, dict[int, Any]] = {}
        for news in labels:
            by_request.setdefault(news.request_id, {})[news.row] = news.label
        stamp = time.time_ns()
        if rows:
            self._save(f"pairs-{stamp}", PAIRS, [_columns(row, by_request.pop(row.request_id, None)) for row in rows])
        late = [
            {"request_id": request_id, "row": row, "label": json.dumps(label)}
            for request_id, known in by_request.items()
            for row, label in known.items()
        ]
        if late:
            self._save(f"labels-{stamp}", LABELS, late)
        return self._trim()

    def _save(self, name: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
        path = self.folder / f"{name}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            pq.write_table(pa.Table.from_pylist(rows, schema), temporary, compression="zstd")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _trim(self) -> int:
        files = sorted(self.folder.glob("*.parquet"), key=lambda path: path.stem.rpartition("-")[2])
        sizes = {path: path.stat().st_size for path in files}
        held = sum(sizes.values())
        for path in files:
            if held <= self.max_bytes:
                break
            path.unlink()
            held -= sizes[path]
        return held


def read_sample(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a sample folder, oldest first, each with every label that is known: `labels` is row -> label."""
    late: dict[str, dict[int, Any]] = {}
    for path in sorted(folder.glob("labels-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            late.setdefault(row["request_id"], {})[row["row"]] = json.loads(row["label"])
    for path in sorted(folder.glob("pairs-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            known = {int(index): label for index, label in json.loads(row["labels"] or "{}").items()}
            yield {**row, "labels": known | late.get(row["request_id"], {})}


def _columns(row: Row, labels: Mapping[int, Any] | None) -> dict[str, Any]:
    return {
        "request_id": row.request_id,
        "at": int(row.at * 1e6),
        "model": row.line,
        "stable_version": row.stable_version,
        "candidate_version": row.candidate_version,
        "inputs": [_tensor(tensor) for tensor in row.inputs],
        "stable_outputs": [_tensor(tensor) for tensor in row.stable.outputs],
        "candidate_outputs": [_tensor(tensor) for tensor in row.candidate.outputs],
        "stable_error": row.stable.error,
        "candidate_error": row.candidate.error,
        "labels": json.dumps(labels) if labels else None,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "data": tensor.raw(),
    }
