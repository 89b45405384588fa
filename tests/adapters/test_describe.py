"""ONNX files and their signatures; files that are no models and what is said about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from adapters.onnx.describe import describe, digest, signature_of
from adapters.onnx.report import FileReport, Graph, Trial, ValueReport
from adapters.sample import NUMPY
from adapters.server import BadArtefact
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from tests import models

Store = Callable[[bytes], Path]


@pytest.mark.parametrize("datatype", list(NUMPY))
async def test_every_datatype_of_onnx_that_can_be_served_is_described(store: Store, datatype: Datatype) -> None:
    signature = await describe(store(models.identity(datatype, (2, DYNAMIC))))
    assert signature == Signature(
        inputs=(TensorSpec("x", datatype, (2, DYNAMIC)),),
        outputs=(TensorSpec("y", datatype, (2, DYNAMIC)),),
        max_batch_size=64,
    )


async def test_without_a_dynamic_first_dimension_shapes_are_whole(store: Store) -> None:
    signature = await describe(store(models.identity(Datatype.INT64, (2, 3), batching=False)))
    assert not signature.batching
    assert signature.inputs == (TensorSpec("x", Datatype.INT64, (2, 3)),)


async def test_scalars_have_the_empty_shape_batched_or_not(store: Store) -> None:
    for batching in (True, False):
        signature = await describe(store(models.scalars(batching=batching)))
        assert signature.batching is batching
        assert {spec.shape for spec in (*signature.inputs, *signature.outputs)} == {()}


async def test_the_batch_size_is_a_setting(store: Store) -> None:
    assert (await describe(store(models.add_one()), max_batch_size=8)).max_batch_size == 8


async def test_an_output_that_is_no_tensor_is_left_out_with_advice(store: Store) -> None:
    signature = await describe(store(models.zipmap_classifier()))
    assert [spec.name for spec in signature.outputs] == ["label"]
    assert signature.batching
    (note,) = signature.notes
    assert "'probabilities' is left out" in note
    assert "{'zipmap': False}" in note


async def test_a_sequence_is_not_taken_for_a_batch(store: Store) -> None:
    running_total = models.model(
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [models.value("x", Datatype.FP32, (2,))],
        [models.value("y", Datatype.FP32, (2,))],
        [numpy_helper.from_array(np.array(0, np.int64), "axis")],
    )
    signature = await describe(store(running_total))
    assert not signature.batching
    assert signature.inputs[0].shape == (DYNAMIC, 2)
    assert signature.notes == ("does not batch: rows change one another's answers in output 'y'",)


async def test_an_output_with_another_number_of_rows_does_not_batch(store: Store) -> None:
    twice = models.model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [models.value("x", Datatype.FP32, (2,))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["M", 2])],
    )
    signature = await describe(store(twice))
    assert not signature.batching
    assert signature.notes == ("does not batch: 1 rows went in and output 'y' has shape (2, 2)",)


async def test_a_model_that_needs_more_than_one_step_still_gets_its_trial(store: Store) -> None:
    last_of_three = models.model(
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3])],
        [models.value("x", Datatype.FP32, (1, DYNAMIC))],
        [models.value("y", Datatype.FP32, (1, DYNAMIC))],
    )
    signature = await describe(store(last_of_three))
    assert signature.batching
    assert signature.notes == ()


def _edited(**changes: int) -> bytes:
    model = onnx.load_from_string(models.classifier())
    model.ir_version = changes.get("ir_version", model.ir_version)
    model.opset_import[0].version = changes.get("opset", model.opset_import[0].version)
    return bytes(model.SerializeToString())


def _unknown_operator() -> bytes:
    model = onnx.load_from_string(models.classifier())
    model.graph.node[0].op_type = "Frobnicate"
    return bytes(model.SerializeToString())


def _sequence_input() -> bytes:
    sequence = helper.make_tensor_sequence_value_info("x", onnx.TensorProto.FLOAT, None)
    return models.model(
        [helper.make_node("SequenceLength", ["x"], ["y"])],
        [sequence],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [])],
    )


def _float8_input() -> bytes:
    return models.model(
        [helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)],
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT8E4M3FN, ["N"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N"])],
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytes, "is empty: expected an ONNX file"),
        (lambda: b"%PDF-1.7 not a model", "not an ONNX file, or not all of one"),
        (lambda: models.classifier()[:-40], "not an ONNX file, or not all of one"),
        (onnx.ModelProto(ir_version=8).SerializeToString, "a model has a graph of operations"),
        (partial(_edited, opset=99), "it uses opset 99 of ai.onnx, and onnxruntime .* knows opsets up to"),
        (partial(_edited, ir_version=99), "Unsupported model IR version: 99"),
        (_unknown_operator, "No Op registered for Frobnicate"),
        (_float8_input, r"input 'x': it is a tensor\(float8e4m3fn\), a datatype that no inference protocol knows"),
        (_sequence_input, r"input 'x': it is a seq\(tensor\(float\)\), not a tensor"),
    ],
)
async def test_a_file_that_cannot_be_served_says_why(store: Store, content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(BadArtefact, match=reason):
        await describe(store(content()))


async def test_weights_in_other_files_are_refused_with_the_way_to_join_them(tmp_path: Path) -> None:
    model = onnx.load_from_string(models.classifier())
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(BadArtefact, match=r"'weights' first\) lie in other files.*save_as_external_data=False"):
        await describe(tmp_path / "model.onnx")


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path, "is a folder"),
        (tmp_path / "missing.onnx", "No such file"),
        (Path("/dev/zero"), "is not a regular file"),
    ]:
        with pytest.raises(BadArtefact, match=reason):
            await describe(path)
        with pytest.raises(BadArtefact, match=reason):
            digest(path)


async def test_a_file_that_takes_too_long_is_given_up(store: Store) -> None:
    endless = models.slow_on_large_input(rounds=10)
    with pytest.raises(BadArtefact, match=r"had not opened and tried it after 0\.01 s"):
        await describe(store(endless), time_limit_s=0.01)


def test_the_digest_is_the_files_sha256(store: Store) -> None:
    content = models.classifier()
    assert digest(store(content)) == f"sha256:{hashlib.sha256(content).hexdigest()}"


async def test_what_onnxruntime_prints_does_not_get_into_the_report(store: Store) -> None:
    # An operator's name that is not UTF-8 upsets onnxruntime's Python side, which then prints to standard output.
    content = models.classifier().replace(b"ArgMax", b"Arg\x80ax")
    with pytest.raises(BadArtefact, match="a name in it is not UTF-8"):
        await describe(store(content))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_a_damaged_file_is_described_or_refused_but_never_anything_else(
    store: Store, data: st.DataObject
) -> None:
    content = bytearray(models.classifier())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    refusal = ""
    try:
        signature = await describe(store(bytes(content)))
    except BadArtefact as error:
        refusal = str(error)
    assert "cannot be served: " in refusal or (signature.inputs and signature.outputs)


values = st.builds(
    ValueReport,
    name=st.text(min_size=1, max_size=8),
    type=st.sampled_from(
        ["tensor(float)", "tensor(string)", "tensor(bfloat16)", "tensor(int4)", "seq(map(int64,tensor(float)))"]
    ),
    dims=st.lists(st.one_of(st.integers(-1, 9), st.sampled_from(["N", "M"]), st.none()), max_size=3).map(tuple),
    optional=st.booleans(),
    doc=st.text(max_size=9),
)
graphs = st.builds(
    Graph,
    inputs=st.lists(values, max_size=3).map(tuple),
    outputs=st.lists(values, max_size=3).map(tuple),
    trial=st.one_of(st.none(), st.builds(Trial, batches=st.booleans(), why_not=st.text(max_size=9))),
    kept=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    metadata=st.dictionaries(st.sampled_from(["names", "labels", "labels.y"]), st.text(max_size=20)),
)


@given(graphs)
def test_a_report_travels_as_json(graph: Graph) -> None:
    assert FileReport.from_json(FileReport(graph=graph).to_json()) == FileReport(graph=graph)


@given(graphs)
@example(Graph(inputs=(), outputs=()))
def test_every_report_becomes_a_signature_or_a_reason(graph: Graph) -> None:
    served = [value for value in graph.outputs if value.datatype is not None]
    needed = [value for value in graph.inputs if not value.optional]
    if not graph.inputs or not served or any(value.datatype is None for value in needed):
        with pytest.raises(BadArtefact, match=r"^model\.onnx cannot be served: "):
            signature_of(Path("model.onnx"), graph, max_batch_size=64)
        return
    signature = signature_of(Path("model.onnx"), graph, max_batch_size=64)
    assert len(signature.inputs) == len([value for value in graph.inputs if value.datatype is not None])
    assert len(signature.outputs) == len(served)
    left_out = len(graph.inputs) - len(signature.inputs) + len(graph.outputs) - len(served)
    assert sum("is left out: it is a " in note for note in signature.notes) == left_out
    assert signature.batching == (graph.trial is not None and graph.trial.batches)


async def test_an_output_of_a_datatype_that_nobody_knows_hides_nothing_else(store: Store) -> None:
    content = models.model(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Cast", ["x"], ["tiny"], to=17)],
        [models.value("x", Datatype.FP32, (2,))],
        [
            models.value("y", Datatype.FP32, (2,)),
            helper.make_tensor_value_info("tiny", onnx.TensorProto.FLOAT8E4M3FN, ["N", 2]),
        ],
    )
    signature = await describe(store(content))
    assert [spec.name for spec in signature.outputs] == ["y"]
    (note,) = signature.notes
    assert note.startswith("output 'tiny' is left out: it is a tensor(float8e4m3fn), a datatype that no")


@pytest.mark.parametrize("batching", [True, False])
async def test_an_input_with_a_default_is_optional_and_a_weight_is_none(store: Store, batching: bool) -> None:
    signature = await describe(store(models.optional_bias(batching=batching)))
    assert signature.batching is batching
    bias = TensorSpec("bias", Datatype.FP32, (2,) if batching else (DYNAMIC,), optional=True)
    assert signature.inputs[1:] == (bias,)
    assert signature.notes == ("1 input ('scale' first) keep their default values: of fixed shape, as weights are",)


async def test_an_input_of_an_optional_type_is_optional(store: Store) -> None:
    signature = await describe(store(models.optional_type()))
    assert [(spec.name, spec.optional) for spec in signature.inputs] == [("x", False), ("more", True)]
    assert signature.batching


async def test_a_bfloat16_model_gets_its_trial(store: Store) -> None:
    signature = await describe(store(models.identity(Datatype.BF16, (3,))))
    assert signature.batching
    assert signature.inputs == (TensorSpec("x", Datatype.BF16, (3,)),)


async def test_what_the_author_wrote_of_a_tensor_and_its_class_names_are_read(store: Store) -> None:
    model = onnx.load_from_string(models.classifier())
    model.graph.input[0].doc_string = "petal sizes, in cm"
    model.metadata_props.add(key="names", value="{0: 'setosa', 1: 'versicolor', 2: 'virginica'}")
    signature = await describe(store(bytes(model.SerializeToString())))
    assert signature.inputs[0].description == "petal sizes, in cm"
    assert {spec.name: spec.labels for spec in signature.outputs} == {
        "label": ("setosa", "versicolor", "virginica"),
        "probabilities": ("setosa", "versicolor", "virginica"),
    }
