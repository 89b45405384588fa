"""The child program that opens an ONNX file: `python -m adapters.onnx.probe PATH`.

Files come from anywhere, and onnxruntime is a large C++ program that reads them; so it does so in a process of its
own, which may crash, hang or swell without harm to the control plane (`adapters.onnx.describe` starts it, bounds it
and reads its answer). The answer is one JSON object on standard output: what the file takes and gives in
onnxruntime's terms, and what a trial run showed; or {"error": reason}.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from adapters.onnx.report import FileReport, Graph, Trial, ValueReport
from adapters.onnx.run import run
from adapters.sample import DYNAMIC_SIZES, Array, required, scatter, zeros
from adapters.signature import DYNAMIC, TensorSpec

_FATAL: Final = 4
"""onnxruntime's log level that prints nothing; what goes wrong is in the answer."""

_MOST_TENSORS: Final = 1_000
"""Far above any model met; it bounds what the control plane has to read of the report."""

_MOST_CHARACTERS: Final = 1_000
"""Of what an author wrote of one tensor."""

_MOST_METADATA: Final = 1 << 20
"""Characters of one metadata entry: a hundred thousand class names."""

_ROWS: Final = 3
_TOLERANCE: Final = 0.05
"""Largest difference, relative to the largest value, between a row's answer alone and in company. Dynamic
quantisation scales by the batch and differs by a per cent or so; a sequence taken for a batch differs by far more."""


class Unservable(Exception):
    """The message says why, for a person."""


def main(path: Path) -> int:
    """Report on the file; exit status 0 also when the report is an error."""
    # onnxruntime prints to standard output when it is upset; from here on that goes to standard error.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        # When memory runs out, this process is the one to go.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        report = FileReport(graph=_examine(path))
    except Exception as error:
        report = FileReport(error=_reason(error))
    with answer:
        answer.write(json.dumps(report.to_json()))
    return 0


def _examine(path: Path) -> Graph:
    model = _one_file(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    docs = {value.name: value.doc_string[:_MOST_CHARACTERS] for value in (*model.graph.input, *model.graph.output)}
    defaults = [_value(node, docs, optional=True) for node in session.get_overridable_initializers()]
    # Old exporters list every weight among the inputs; a weight's shape is fixed, what callers may choose is not.
    offered = [value for value in defaults if DYNAMIC in value.shape]
    graph = Graph(
        inputs=(*(_value(node, docs) for node in session.get_inputs()), *offered),
        outputs=tuple(_value(node, docs) for node in session.get_outputs()),
        kept=tuple(value.name for value in defaults if value not in offered)[:_MOST_TENSORS],
        metadata=_metadata(model),
    )
    if any(value.datatype is None for value in graph.inputs):
        return graph
    if graph.may_batch:
        graph = replace(graph, trial=_trial(session, graph))
    return replace(graph, dynamic_size=_dynamic_size(session, graph))


def _value(node: Any, docs: Mapping[str, str], *, optional: bool = False) -> ValueReport:
    # onnxruntime gives a number, a symbol or None per dimension.
    dims = tuple(d if isinstance(d, int | str) or d is None else str(d) for d in node.shape or ())
    inner = re.fullmatch(r"optional\((.*)\)", node.type)
    return ValueReport(
        name=node.name,
        type=inner[1] if inner else node.type,
        dims=dims,
        optional=optional or inner is not None,
        doc=docs.get(node.name, ""),
    )


def _metadata(model: Any) -> dict[str, str]:
    """The file's metadata, without what is too long to be what we look for (class names)."""
    return {entry.key: entry.value for entry in model.metadata_props if len(entry.value) <= _MOST_METADATA}


def _dynamic_size(session: Any, graph: Graph) -> int:
    """The smallest size for the dynamic dimensions that the model takes; 1 when it takes none of those tried."""
    rows = 1 if graph.trial and graph.trial.batches else None
    skipped = 0 if rows is None else 1
    specs = required([TensorSpec(v.name, v.tensor_type, v.shape[skipped:], v.optional) for v in graph.inputs])
    names = [v.name for v in graph.outputs if v.datatype is not None]
    if any(DYNAMIC in spec.shape for spec in specs):
        for size, feeds in zip(DYNAMIC_SIZES, zeros(specs, rows=rows), strict=False):
            with suppress(Exception):
                run(session, names, feeds)
                return size
    return 1


def _trial(session: Any, graph: Graph) -> Trial:
    """Whether rows put in together come out as the same rows apart."""
    specs = required([TensorSpec(v.name, v.tensor_type, v.shape[1:], optional=v.optional) for v in graph.inputs])
    names = [v.name for v in graph.outputs if v.datatype is not None]
    failure = ""
    for one, several in zip(zeros(specs, rows=1), zeros(specs, rows=_ROWS), strict=True):
        try:
            for feeds, rows in ((one, 1), (several, _ROWS)):
                for name, output in zip(names, run(session, names, feeds), strict=True):
                    if np.ndim(output) == 0 or len(output) != rows:
                        return Trial.fail(f"{rows} rows went in and output {name!r} has shape {np.shape(output)}")
        except Exception as error:
            failure = failure or _reason(error)
            continue
        return _independence(session, names, scatter(several, seed=1))
    return Trial.fail(f"a trial run with made-up rows failed: {failure}")


def _independence(session: Any, names: list[str], feeds: dict[str, Array]) -> Trial:
    try:
        together = run(session, names, feeds)
        again = run(session, names, feeds)
        alone = [run(session, names, {k: v[row : row + 1] for k, v in feeds.items()}) for row in range(_ROWS)]
    except Exception:
        # Made-up values can be out of range where zeros are not; then the count of rows is all there is to go by.
        return Trial(batches=True)
    for index, name in enumerate(names):
        if not _alike(together[index], again[index]):
            continue  # The model draws random numbers: nothing can be compared.
        apart = [answers[index][0] for answers in alone]
        for row in range(_ROWS):
            if not _alike(together[index][row], apart[row]):
                return Trial.fail(f"rows change one another's answers in output {name!r}")
    return Trial(batches=True)


def _alike(one: Any, other: Any) -> bool:
    one, other = _known(one), _known(other)
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    if not one.size:
        return True
    one, other = one.astype(np.float64), other.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return False
    finite = np.isfinite(one)
    scale = np.max(np.abs(one[finite]), initial=1e-6)
    return bool(np.max(np.abs(one[finite] - other[finite]), initial=0.0) <= _TOLERANCE * scale)


def _known(values: Any) -> Array:
    """numpy's own arithmetic does not know bfloat16."""
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def _one_file(path: Path) -> Any:
    """The file as onnx reads it. Weights in other files would not be stored, digested or delivered with the version."""
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise Unservable("it is not an ONNX file, or not all of one: its protobuf message does not parse") from error
    if not model.graph.node:
        raise Unservable("it is not an ONNX model: a model has a graph of operations, and this file has none")
    weights = {tensor.name for tensor in model.graph.initializer}
    if sum(value.name not in weights for value in model.graph.input) + len(model.graph.output) > _MOST_TENSORS:
        raise Unservable(f"it has more than {_MOST_TENSORS} inputs and outputs")
    outside = [tensor.name for tensor in _weights(model.graph) if uses_external_data(tensor)]
    if outside:
        raise Unservable(
            f"{len(outside)} of its weights ({outside[0]!r} first) lie in other files: save it as one file with "
            "`onnx.save(onnx.load(PATH), NEW_PATH, save_as_external_data=False)`"
        )
    return model


def _weights(graph: Any) -> Iterator[Any]:
    """Constant tensors of the graph and of the graphs inside its nodes (If, Loop, Scan)."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _weights(inner)


def _reason(error: Exception) -> str:
    """onnxruntime's reason for a person: without its codes, its C++ signatures and the path, which the caller knows."""
    if isinstance(error, UnicodeDecodeError):
        return "a name in it is not UTF-8"
    text = " ".join(str(error).split())
    opset = re.search(r"Opset (\d+) is under development.* domain (\S+) is till opset (\d+)", text)
    if opset:
        used, domain, known = opset.groups()
        return (
            f"it uses opset {used} of {domain}, and onnxruntime {ort.__version__} knows opsets up to {known}: "
            "export it with a lower opset"
        )
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"^(Load model from .+? failed:|Exception during initialization: )", "", text)
    text = re.sub(r"^\S*/onnxruntime/.*?\(.*?const [^)]*\) ", "", text)
    return text.strip() or type(error).__name__


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
