"""The `model.py` that serves an ONNX file from Triton's Python backend.

Copied as it is next to `model.onnx` and run inside Triton's stub process, never imported by Penstock; so it imports
nothing of Penstock. Triton hands `execute` the requests that waited together. They are run as one batch and taken
apart again; when that run fails, each request is run alone, so that only the guilty one fails.

numpy has no bfloat16: such a tensor is an array of its 16 bits (uint16) here, and comes and goes by DLPack.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

BFLOAT16 = "tensor(bfloat16)"
BFLOAT16_ELEMENT = 16
"""onnx.TensorProto.BFLOAT16."""

FATAL = 4
"""onnxruntime's log level that prints nothing: a failed run is answered, and printing it would flood the log."""


class RequestError(Exception):
    """A request that cannot be run; the message is for the caller."""


class TritonPythonModel:
    """The class name that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        options = ort.SessionOptions()
        # Triton runs as many instances as there shall be threads.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._batches = int(config["max_batch_size"]) > 0
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._optional = {tensor["name"] for tensor in config["input"] if tensor.get("optional")}
        takes = (*self._session.get_inputs(), *self._session.get_overridable_initializers())
        # Triton has no scalars without batching: they travel as [1].
        self._scalars = {tensor.name for tensor in takes if not tensor.shape}
        self._bfloat16 = {t.name for t in (*takes, *self._session.get_outputs()) if t.type == BFLOAT16}
        # What the last responses point into, until Triton has copied it, which it does before the next call.
        self._lent: list[Any] = []

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        self._lent.clear()
        answers: list[Any] = [None] * len(requests)
        ready: list[tuple[int, dict[str, Any]]] = []
        for index, request in enumerate(requests):
            try:
                ready.append((index, self._read(request)))
            except RequestError as error:
                answers[index] = _refusal(str(error), pb_utils.TritonError.INVALID_ARG)
        if len(ready) > 1 and self._batches:
            together = self._run_together([feeds for _, feeds in ready])
            if together is not None:
                for (index, _), outputs in zip(ready, together, strict=True):
                    answers[index] = self._answer(requests[index], outputs)
                return answers
        for index, feeds in ready:
            try:
                outputs = self._run(feeds)
                answers[index] = self._answer(requests[index], outputs)
            except Exception as error:
                answers[index] = _refusal(f"the model failed on this input: {error}", pb_utils.TritonError.INTERNAL)
        return answers

    def _run_together(self, feeds: list[dict[str, Any]]) -> list[list[Any]] | None:
        """Outputs per request from one run; None when that run fails, or does not answer row by row."""
        names = list(feeds[0])
        if not names or any(list(each) != names for each in feeds):
            return None  # Some give an optional input and some do not.
        rows = [len(each[names[0]]) for each in feeds]
        try:
            joined = {name: np.concatenate([each[name] for each in feeds]) for name in names}
            outputs = self._run(joined)
        except Exception:
            return None
        if any(len(output) != sum(rows) for output in outputs):
            return None
        ends = np.cumsum(rows)[:-1]
        parts = [np.split(output, ends) for output in outputs]
        return [list(each) for each in zip(*parts, strict=True)]

    def _run(self, feeds: dict[str, Any]) -> list[Any]:
        if not self._bfloat16:
            return list(self._session.run(self._outputs, feeds))
        values = {name: self._value(name, array) for name, array in feeds.items()}
        return [_array(value) for value in self._session.run_with_ort_values(self._outputs, values)]

    def _value(self, name: str, array: Any) -> Any:
        if name in self._bfloat16:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16_ELEMENT)
        return ort.OrtValue.ortvalue_from_numpy(array)

    def _read(self, request: Any) -> dict[str, Any]:
        feeds: dict[str, Any] = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None and name in self._optional:
                continue
            if tensor is None:
                raise RequestError(f"input {name!r} is missing")
            array = _bits(ort.OrtValue.from_dlpack(tensor)) if name in self._bfloat16 else tensor.as_numpy()
            if name in self._scalars:
                array = array.reshape(())
            feeds[name] = _text(name, array) if array.dtype == np.object_ else array
        return feeds

    def _answer(self, request: Any, outputs: Sequence[Any]) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [
                self._tensor(name, np.ascontiguousarray(np.atleast_1d(output)))
                for name, output in zip(self._outputs, outputs, strict=True)
                if name in wanted
            ]
        )

    def _tensor(self, name: str, array: Any) -> Any:
        if name not in self._bfloat16:
            return pb_utils.Tensor(name, array)
        self._lent.append(array)
        return pb_utils.Tensor.from_dlpack(name, self._value(name, array))


def _array(value: Any) -> Any:
    return _bits(value) if value.data_type() == BFLOAT16 else value.numpy()


def _bits(value: Any) -> Any:
    """The elements of a bfloat16 value, copied."""
    shape = value.shape()
    if 0 in shape:
        return np.empty(shape, np.uint16)
    bits = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    return np.array(bits, np.uint16).reshape(shape)


def _text(name: str, array: Any) -> Any:
    """BYTES as ONNX strings, which are UTF-8."""
    try:
        decoded = [element.decode("utf-8") for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise RequestError(f"input {name!r}: expected text in UTF-8, received other bytes ({error.reason})") from error
    made = np.empty(len(decoded), np.object_)
    made[:] = decoded
    return made.reshape(array.shape)


def _refusal(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
