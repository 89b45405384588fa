"""What was compared can be read back from Parquet; the folder is bounded; a bad disk costs rows and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapters.triton.inference import Answer, Tensor
from rollout.evidence.mirror.sample import Row, Sample, read_sample
from rollout.evidence.mirror.wire import LabelNews, Totals


def row(request_id: str, size: int = 4) -> Row:
    x = Tensor("x", "FP32", np.random.default_rng(0).random((1, size)).astype(np.float32))
    label = Tensor("label", "INT64", np.array([3], np.int64))
    return Row(request_id, 1_700_000_000.5, "digits", 1, 2, (x,), Answer(0, outputs=(label,)), Answer(13, "boom"))


async def test_rows_are_read_back_with_their_labels(tmp_path: Path) -> None:
    sample = Sample(tmp_path / "mirror", 1_000_000, Totals())
    sample.keep(row("a"))
    sample.keep(row("b"))
    sample.label([LabelNews("a", 0, 3)])
    await sample.flush()
    sample.label([LabelNews("b", 0, "seven")])
    await sample.flush()
    first, second = read_sample(tmp_path / "mirror")
    assert (first["request_id"], first["model"], first["labels"], second["labels"]) == (
        "a",
        "digits",
        {0: 3},
        {0: "seven"},
    )
    (x,) = first["inputs"]
    assert (x["name"], x["datatype"], x["shape"]) == ("x", "FP32", [1, 4])
    assert np.frombuffer(x["data"], "<f4").tolist() == row("a").inputs[0].values[0].tolist()
    assert (first["candidate_error"], first["candidate_outputs"]) == ("boom", [])


async def test_the_oldest_files_go_when_the_folder_is_full(tmp_path: Path) -> None:
    totals = Totals()
    sample = Sample(tmp_path / "mirror", 100_000, totals)
    for number in range(12):
        sample.keep(row(str(number), size=5_000))
        await sample.flush()
    held = sum(path.stat().st_size for path in (tmp_path / "mirror").iterdir())
    assert held <= 100_000
    assert totals.sample_bytes == held
    kept = [one["request_id"] for one in read_sample(tmp_path / "mirror")]
    assert kept == [str(number) for number in range(12 - len(kept), 12)]
    assert 0 < len(kept) < 12


async def test_a_disk_that_cannot_be_written_costs_rows_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_text("a file where the folder should be")
    totals = Totals()
    sample = Sample(tmp_path / "mirror", 1_000_000, totals)
    sample.keep(row("a"))
    await sample.flush()
    assert (totals.sample_dropped, totals.sample_rows) == (1, 0)
    (tmp_path / "mirror").unlink()
    sample.keep(row("b"))
    await sample.flush()
    assert (totals.sample_dropped, totals.sample_rows) == (1, 1)


async def test_memory_is_bounded_while_nothing_is_written(tmp_path: Path) -> None:
    totals = Totals()
    sample = Sample(tmp_path / "mirror", 1_000_000, totals, buffer_bytes=10_000)
    for number in range(100):
        sample.keep(row(str(number), size=250))
    assert 0 < totals.sample_dropped < 100
    await sample.flush()
    assert totals.sample_rows == 100 - totals.sample_dropped
