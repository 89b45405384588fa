"""A golden set keeps a worse candidate from users; what is wrong with the file is told by line."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from adapters.signature import Datatype, Signature, TensorSpec
from adapters.triton.inference import Inference, InferRequest, Target
from rollout.evidence.golden.batches import MOST_ROWS, batches
from rollout.evidence.golden.evaluate import ServerAway, evaluate
from rollout.evidence.golden.file import BadGoldenFile, GoldenRow, read_golden
from rollout.evidence.golden.picture import picture
from rollout.evidence.golden.score import GoldenScore, Marked, refusal, score, sign_test
from rollout.spec_parts import GoldenSpec
from tests.evidence.versions import serving_versions, threshold

ONE_COLUMN = Signature(
    (TensorSpec("x", Datatype.FP32, (1,)),), (TensorSpec("label", Datatype.INT64, ()),), max_batch_size=64
)


def line(x: float, label: Any) -> str:
    return json.dumps({"inputs": {"x": [x]}, "label": label})


class TestFile:
    def test_every_line_that_is_wrong_is_told(self) -> None:
        wrong = ["{", '{"inputs": {"x": [1]}}', line(1.0, None), "[]", '{"inputs": {}, "label": 1}']
        text = "\n".join([line(1.0, 1), *wrong])
        with pytest.raises(BadGoldenFile) as bad:
            read_golden(text.encode())
        assert [problem.split(":")[0] for problem in bad.value.problems] == [f"line {n}" for n in (2, 3, 4, 5, 6)]

    def test_an_empty_file_is_no_golden_set(self) -> None:
        with pytest.raises(BadGoldenFile, match="it has no examples"):
            read_golden(b"\n\n")

    def test_a_numpy_file_has_the_same_rows(self) -> None:
        file = io.BytesIO()
        np.savez(file, x=np.array([[0.5], [1.5]], np.float32), label=np.array([0, 1]))
        assert read_golden(file.getvalue()) == read_golden(f"{line(0.5, 0)}\n{line(1.5, 1)}".encode())

    def test_a_numpy_file_of_different_lengths_is_refused(self) -> None:
        file = io.BytesIO()
        np.savez(file, x=np.zeros((3, 1)), label=np.zeros(2))
        with pytest.raises(BadGoldenFile, match="different lengths"):
            read_golden(file.getvalue())

    @given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"PK\x03\x04" + data))
    def test_any_bytes_are_rows_or_refused(self, data: bytes) -> None:
        with suppress(BadGoldenFile):
            assert read_golden(data)


class TestBatches:
    def test_rows_share_requests_up_to_the_limit(self) -> None:
        rows = [GoldenRow(n, {"x": [float(n)]}, 0) for n in range(1, 71)]
        made = list(batches(rows, ONE_COLUMN))
        assert [len(batch.rows) for batch in made] == [MOST_ROWS, MOST_ROWS, 6]
        (x,) = InferRequest.parse(made[2].request.to(Target("m", "1"))).inputs()
        assert (x.shape, x.values[0, 0]) == ((6, 1), 65.0)

    @pytest.mark.parametrize(
        ("inputs", "why"),
        [
            ({"x": [1.0, 2.0]}, r"line 7: inputs.x: expected shape \[1\], received \[2\]"),
            ({"x": ["a"]}, "line 7: inputs.x: expected FP32"),
            ({"y": [1.0]}, "line 7: inputs.y: unknown; the model takes x"),
            ({"x": [[1.0], [1.0, 2.0]]}, "line 7: inputs.x: rows of different lengths"),
        ],
    )
    def test_a_row_that_does_not_fit_is_told_by_line(self, inputs: dict[str, Any], why: str) -> None:
        with pytest.raises(BadGoldenFile, match=why):
            list(batches([GoldenRow(7, inputs, 0)], ONE_COLUMN))

    def test_a_number_beyond_its_type_is_told(self) -> None:
        bytes_only = Signature((TensorSpec("x", Datatype.UINT8, (1,)),), (), max_batch_size=8)
        with pytest.raises(BadGoldenFile, match="expected 0 to 255 for UINT8"):
            list(batches([GoldenRow(1, {"x": [256]}, 0)], bytes_only))

    def test_rows_of_different_shapes_are_asked_apart(self) -> None:
        any_length = Signature((TensorSpec("x", Datatype.BYTES, (-1,)),), (), max_batch_size=8)
        rows = [GoldenRow(1, {"x": ["a"]}, 0), GoldenRow(2, {"x": ["b", "c"]}, 0), GoldenRow(3, {"x": ["d", "e"]}, 0)]
        assert [len(batch.rows) for batch in batches(rows, any_length)] == [1, 2]


async def _score(stable: float, candidate: float, truth: float = 0.5, examples: int = 400) -> GoldenScore:
    xs = np.random.default_rng(7).random(examples)
    rows = [GoldenRow(n, {"x": [float(x)]}, int(x > truth)) for n, x in enumerate(xs, start=1)]
    async with serving_versions({"m.1": threshold(stable), "m.2": threshold(candidate)}) as versions:
        inference = Inference(versions.address)
        marked = await evaluate(
            batches(rows, ONE_COLUMN),
            inference=inference,
            stable=Target("m.1", "1"),
            candidate=Target("m.2", "1"),
            label="label",
            batching=True,
        )
        await inference.close()
    return score(marked)


async def test_a_candidate_that_is_worse_is_refused_and_the_reason_has_the_numbers() -> None:
    found = await _score(0.5, 0.6)
    assert 0.85 < found.candidate_accuracy < 0.95
    assert found.stable_accuracy == 1.0
    why = refusal(found, GoldenSpec("sha256:x", max_drop=0.02))
    assert "points below stable, 2.0 allowed" in why
    assert refusal(found, GoldenSpec("sha256:x", max_drop=0.2)) == ""
    assert "below the required 99.0 %" in refusal(found, GoldenSpec("sha256:x", min_accuracy=0.99))


async def test_a_version_as_good_passes_and_per_class_adds_up() -> None:
    found = await _score(0.5, 0.5)
    assert refusal(found, GoldenSpec("sha256:x", min_accuracy=0.99, max_drop=0.0)) == ""
    assert sum(one.examples for one in found.classes) == found.examples
    assert sum(one.candidate_right for one in found.classes) == found.candidate_right


def test_a_drop_that_may_be_luck_refuses_nobody() -> None:
    found = score([Marked(1, 1, 0), *[Marked(1, 1, 1)] * 19])
    assert found.stable_accuracy - found.candidate_accuracy == pytest.approx(0.05)
    assert refusal(found, GoldenSpec("sha256:x", max_drop=0.01)) == ""


async def test_a_version_that_fails_on_examples_is_wrong_on_them() -> None:
    def broken(inputs: Any) -> Any:
        raise RuntimeError("boom")

    async with serving_versions({"m.1": threshold(0.5), "m.2": broken}) as versions:
        inference = Inference(versions.address)
        rows = [GoldenRow(1, {"x": [0.9]}, 1)]
        marked = await evaluate(
            batches(rows, ONE_COLUMN),
            inference=inference,
            stable=Target("m.1", "1"),
            candidate=Target("m.2", "1"),
            label="label",
            batching=True,
        )
        await inference.close()
    assert marked == [Marked(1, 1, None)]
    assert score(marked).candidate_failed == 1


async def test_a_server_that_is_away_says_nothing_of_a_version() -> None:
    async with serving_versions({}) as versions:
        address = versions.address
    inference = Inference(address)
    with pytest.raises(ServerAway):
        await evaluate(
            batches([GoldenRow(1, {"x": [0.9]}, 1)], ONE_COLUMN),
            inference=inference,
            stable=Target("m.1", "1"),
            candidate=Target("m.2", "1"),
            label="label",
            batching=True,
        )
    await inference.close()


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_the_paired_test_is_the_exact_binomial(lost: int, won: int) -> None:
    expected = binomtest(lost, lost + won, 0.5, alternative="greater").pvalue if lost + won else 1.0
    assert sign_test(lost, won) == pytest.approx(expected, rel=1e-6, abs=1e-300)


async def test_the_picture_is_svg_with_every_class(tmp_path: Path) -> None:
    found = await _score(0.5, 0.6)
    drawing = ElementTree.fromstring(picture(found, "digits <2>"))
    words = " ".join(drawing.itertext())
    assert "digits <2>" in words
    assert all(f"{one.label} ({one.examples})" in words for one in found.classes)
