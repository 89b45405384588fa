"""Asking a served version, and onnxruntime itself, the same question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import tritonclient.grpc.aio as tritonclient

from adapters.onnx.run import run
from adapters.sample import Array
from adapters.server import Artefact
from adapters.triton.config import served_wire_shape
from tests.triton_server import RunningTriton


async def ask_served(client: Any, artefact: Artefact, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What the server answers, in the shapes of the model itself."""
    signature = artefact.signature
    inputs = []
    for spec in signature.inputs:
        array = feeds[spec.name]
        wire = array if spec.shape else array.reshape((*array.shape, *served_wire_shape(spec)))
        tensor = tritonclient.InferInput(spec.name, list(wire.shape), spec.datatype.value)
        tensor.set_data_from_numpy(wire)
        inputs.append(tensor)
    answer = await client.infer(f"{artefact.model}.{artefact.version}", inputs)
    outputs: dict[str, Array] = {}
    for spec in signature.outputs:
        array = answer.as_numpy(spec.name)
        if not spec.shape:
            assert array.shape[-1:] == served_wire_shape(spec)
            array = array.reshape(array.shape[:-1])
        outputs[spec.name] = _text(array)
    return outputs


def ask_onnxruntime(artefact: Artefact, feeds: Mapping[str, Array]) -> dict[str, Array]:
    session = ort.InferenceSession(str(artefact.path), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in artefact.signature.outputs]
    return dict(zip(names, run(session, names, feeds), strict=True))


def client_of(server: RunningTriton) -> Any:
    return tritonclient.InferenceServerClient(str(server.grpc))


def assert_same(received: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Equal to the last bit, types and shapes included."""
    assert received.keys() == expected.keys()
    for name, array in expected.items():
        assert received[name].dtype == array.dtype, name
        assert received[name].shape == array.shape, name
        np.testing.assert_array_equal(received[name], array, err_msg=name)


def _text(array: Array) -> Array:
    if array.dtype != np.object_:
        return array
    made = np.empty(array.size, np.object_)
    made[:] = [element.decode("utf-8") for element in array.ravel()]
    return made.reshape(array.shape)
