"""Made-up inputs as tritonclient sends them: for the test inference of a version, and for asking its class names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tritonclient.grpc.aio as triton

from adapters.sample import required, zeros
from adapters.signature import Signature
from adapters.triton.config import served_wire_shape


def sample_inputs(signature: Signature) -> Iterator[list[Any]]:
    """The `InferInput`s of one row, once per size that may stand for the dynamic dimensions; at least once."""
    specs = required(signature.inputs)
    for sample in zeros(specs, rows=1 if signature.batching else None):
        inputs = []
        for spec in specs:
            array = sample[spec.name]
            wire = array if spec.shape else array.reshape((*array.shape, *served_wire_shape(spec)))
            tensor = triton.InferInput(spec.name, list(wire.shape), spec.datatype.value)
            tensor.set_data_from_numpy(wire)
            inputs.append(tensor)
        yield inputs
