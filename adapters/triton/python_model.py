"""The `model.py` that serves an ONNX file from Triton's Python backend.

Copied as it is next to `model.onnx` and run inside Triton's stub process, never imported by Penstock; so it imports
nothing of Penstock. Triton hands `execute` the requests that waited together. They are run as one batch and taken
apart again; when that run fails, each request is run alone, so that only the guilty one fails.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

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
        # Triton has no scalars without batching: they travel as [1].
        self._scalars = {tensor.name for tensor in self._session.get_inputs() if not tensor.shape}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
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
                outputs = self._session.run(self._outputs, feeds)
                answers[index] = self._answer(requests[index], outputs)
            except Exception as error:
                answers[index] = _refusal(f"the model failed on this input: {error}", pb_utils.TritonError.INTERNAL)
        return answers

    def _run_together(self, feeds: list[dict[str, Any]]) -> list[list[Any]] | None:
        """Outputs per request from one run; None when that run fails, or does not answer row by row."""
        rows = [len(each[self._inputs[0]]) for each in feeds]
        try:
            joined = {name: np.concatenate([each[name] for each in feeds]) for name in self._inputs}
            outputs = self._session.run(self._outputs, joined)
        except Exception:
            return None
        if any(len(output) != sum(rows) for output in outputs):
            return None
        ends = np.cumsum(rows)[:-1]
        parts = [np.split(output, ends) for output in outputs]
        return [list(each) for each in zip(*parts, strict=True)]

    def _read(self, request: Any) -> dict[str, Any]:
        feeds: dict[str, Any] = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise RequestError(f"input {name!r} is missing")
            array = tensor.as_numpy()
            if name in self._scalars:
                array = array.reshape(())
            feeds[name] = _text(name, array) if array.dtype == np.object_ else array
        return feeds

    def _answer(self, request: Any, outputs: Sequence[Any]) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.ascontiguousarray(np.atleast_1d(output)))
                for name, output in zip(self._outputs, outputs, strict=True)
                if name in wanted
            ]
        )


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
