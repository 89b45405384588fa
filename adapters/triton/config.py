"""The Triton configuration of a version, made from its signature.

Pure functions of values; `adapters.triton.client` delivers what they make, and `adapters.triton.describe` reads a
configuration back. Triton's own rules that matter here:

- `dims` leaves out the batch dimension exactly when `max_batch_size` is above 0.
- `dims` has at least one element. A tensor with no dimension of its own (a label per row, say) is declared as
  `dims: [1]`: callers send and receive [rows, 1], or [1] without batching. `served_wire_shape` says so as a function.
- A batching model gets `reshape: {shape: []}` besides, so that it sees [rows]. Without batching Triton refuses that
  ("scalar tensors are not supported"); the backend takes the dimension away.
- A dimension of `dims` is -1 or at least 1, although tensors with a dimension of 0 travel well: it is declared as -1.

What `dims` cannot say is in a parameter (`SHAPES`), for reading the signature back.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from adapters.server import Artefact
from adapters.signature import DYNAMIC, Datatype, TensorSpec
from adapters.triton.settings import ModelBackend, TritonSettings

SERVED_VERSION: Final = "1"
"""Triton's own version inside each of its models: one Triton model per version (docs/decisions/0001)."""

MODEL_FILE: Final = "model.onnx"

DIGEST: Final = "penstock_digest"
"""Configuration parameter that tells which artefact a loaded version is."""

SHAPES: Final = "penstock_shapes"
"""Configuration parameter: the shapes that `dims` does not say (scalars, dimensions of 0), as JSON by tensor."""

_KIND_CPU: Final = ModelInstanceGroup.Kind.Value("KIND_CPU")

TRITON_TYPE: Final[dict[Datatype, int]] = {
    datatype: DataType.Value("TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype.value}")
    for datatype in Datatype
}


def served_wire_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of a tensor in Triton's requests and responses, without the batch dimension: never empty.

    With batching the wire has (rows, *served_wire_shape); without, served_wire_shape itself.
    """
    return spec.shape or (1,)


def model_config(artefact: Artefact, *, name: str, settings: TritonSettings) -> ModelConfig:
    """The complete configuration of one version."""
    signature = artefact.signature
    config: Any = ModelConfig(name=name, max_batch_size=signature.max_batch_size, backend=settings.backend.value)
    config.default_model_filename = "model.py" if settings.backend is ModelBackend.PYTHON else MODEL_FILE
    for spec in signature.inputs:
        declared = config.input.add()
        _declare(declared, spec, batching=signature.batching)
        declared.optional = spec.optional
    for spec in signature.outputs:
        _declare(config.output.add(), spec, batching=signature.batching)
    config.version_policy.latest.num_versions = 1
    config.instance_group.add(count=settings.instances, kind=_KIND_CPU)
    if signature.batching:
        # No default_queue_policy, although it could bound the queue: with one, Triton 2.51 now and then misses the
        # wake-up of its batcher and lets requests lie for 500 ms (measured: docs/decisions/0001). Envoy bounds the
        # requests in flight instead.
        config.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
    parameters = {DIGEST: artefact.digest, "penstock_model": artefact.model, "penstock_version": str(artefact.version)}
    if shapes := {s.name: list(s.shape) for s in (*signature.inputs, *signature.outputs) if not _sayable(s)}:
        parameters[SHAPES] = json.dumps(shapes)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def _sayable(spec: TensorSpec) -> bool:
    return bool(spec.shape) and 0 not in spec.shape


def _declare(tensor: Any, spec: TensorSpec, *, batching: bool) -> None:
    tensor.name = spec.name
    tensor.data_type = TRITON_TYPE[spec.datatype]
    tensor.dims.extend(size or DYNAMIC for size in served_wire_shape(spec))
    if batching and not spec.shape:
        tensor.reshape.SetInParent()
