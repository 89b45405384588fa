"""An ONNX file -> its Signature and digest; the first thing `penstock deploy` does with it.

The file is opened by a child process with a time limit (`adapters.onnx.probe`); this module checks what can be
checked without opening it, reads the child's report, and turns it into a signature or into a `BadArtefact` that says
in words what is wrong and what to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Final

from adapters.onnx.labels import with_labels
from adapters.onnx.report import FileReport, Graph, ValueReport
from adapters.server import BadArtefact
from adapters.signature import Signature, TensorSpec

DEFAULT_MAX_BATCH_SIZE: Final = 64
"""Rows in one run of a batching model: past this, small models on a CPU gain nothing and latency grows."""

DEFAULT_TIME_LIMIT_S: Final = 120.0
"""Longest that opening a file and its trial run may take, seconds: gigabytes from a cold disk, and then some."""

_CHUNK: Final = 1 << 20


async def describe(
    path: Path, *, max_batch_size: int = DEFAULT_MAX_BATCH_SIZE, time_limit_s: float = DEFAULT_TIME_LIMIT_S
) -> Signature:
    """What the model in `path` takes and gives. Raises BadArtefact with the reason in words.

    `max_batch_size` is what a batching model gets, at least 1; whether it batches is found out by a trial run.
    """
    require_readable(path)
    report = await _probe(path, time_limit_s)
    if report.graph is None:
        raise BadArtefact(f"{path} cannot be served: {report.error}")
    return signature_of(path, report.graph, max_batch_size=max_batch_size)


def digest(path: Path) -> str:
    """`sha256:<hex>` of the file's content, read in pieces. Raises BadArtefact when it cannot be read."""
    require_readable(path)
    state = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            state.update(piece)
    return f"sha256:{state.hexdigest()}"


def require_readable(path: Path) -> None:
    """Raises BadArtefact unless `path` is a regular file with content that this process may read."""
    try:
        status = path.stat()
    except OSError as error:
        raise BadArtefact(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadArtefact(f"{path} is a folder: expected an ONNX file")
    if not stat.S_ISREG(status.st_mode):
        raise BadArtefact(f"{path} is not a regular file: expected an ONNX file")
    if status.st_size == 0:
        raise BadArtefact(f"{path} is empty: expected an ONNX file")
    if not os.access(path, os.R_OK):
        raise BadArtefact(f"{path} cannot be read: permission denied")


def signature_of(path: Path, graph: Graph, *, max_batch_size: int) -> Signature:
    """The signature that a report amounts to: a pure function. Raises BadArtefact."""
    batching = graph.trial is not None and graph.trial.batches
    notes = [] if batching or graph.trial is None else [f"does not batch: {graph.trial.why_not}"]
    if not graph.inputs:
        raise BadArtefact(f"{path} cannot be served: the model takes no input")
    if graph.kept:
        notes.append(
            f"{_count(len(graph.kept), 'input')} ({graph.kept[0]!r} first) keep their default values: "
            "of fixed shape, as weights are"
        )
    outputs: list[TensorSpec] = []
    for value in graph.outputs:
        if value.datatype is not None:
            outputs.append(_spec(value, batching=batching))
        else:
            notes.append(f"output {value.name!r} is left out: {_why_not_served(value)}")
    if not outputs:
        raise BadArtefact(f"{path} cannot be served: no output can be; {'; '.join(notes) or 'it has none'}")
    inputs: list[TensorSpec] = []
    for value in graph.inputs:
        if value.datatype is not None:
            inputs.append(_spec(value, batching=batching))
        elif value.optional:
            notes.append(f"optional input {value.name!r} is left out: {_why_not_served(value)}")
        else:
            raise BadArtefact(f"{path} cannot be served: input {value.name!r}: {_why_not_served(value)}")
    labelled = with_labels(outputs, graph.metadata)
    return Signature(
        inputs=tuple(inputs),
        outputs=labelled,
        max_batch_size=max_batch_size if batching else 0,
        notes=tuple(notes),
        dynamic_size=graph.dynamic_size,
    )


def _spec(value: ValueReport, *, batching: bool) -> TensorSpec:
    return TensorSpec(
        value.name,
        value.tensor_type,
        value.shape[1:] if batching else value.shape,
        optional=value.optional,
        description=value.doc,
    )


def _why_not_served(value: ValueReport) -> str:
    if value.is_tensor:
        return (
            f"it is a {value.type}, a datatype that no inference protocol knows: cast it inside the model, "
            "to float32 for instance, and export again"
        )
    advice = " (with skl2onnx, export with options={'zipmap': False})" if "map(" in value.type else ""
    return f"it is a {value.type}, not a tensor{advice}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


async def _probe(path: Path, time_limit_s: float) -> FileReport:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "adapters.onnx.probe",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            # onnxruntime would report to its makers, and leave a file in the temporary folder.
            "ORT_DISABLE_TELEMETRY": "1",
        },
    )
    try:
        async with asyncio.timeout(time_limit_s):
            said, _ = await child.communicate()
    except TimeoutError as error:
        raise BadArtefact(
            f"{path} cannot be served: onnxruntime had not opened and tried it after {time_limit_s:g} s"
        ) from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        raise BadArtefact(f"{path} cannot be served: onnxruntime {_end(child.returncode or 0)} while opening it")
    return FileReport.from_json(json.loads(said))


def _end(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"was killed ({name}; out of memory, perhaps)" if name == "SIGKILL" else f"crashed ({name})"
    return f"ended with exit status {status}"
