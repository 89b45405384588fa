"""The Triton configuration of a version, made from its signature, and a signature read back from one.

Pure functions of values; `adapters.triton.client` delivers what they make. Triton's own rules that matter here:

- `dims` leaves out the batch dimension exactly when `max_batch_size` is above 0.
- `dims` has at least one element. A tensor with no dimension of its own (a label per row, say) is declared as
  `dims: [1]`: callers send and receive [rows, 1], or [1] without batching. `served_wire_shape` says so as a function.
- A batching model gets `reshape: {shape: []}` besides, so that it sees [rows]. Without batching Triton refuses that
  ("scalar tensors are not supported"); the backend takes the dimension away, and a parameter tells it from a
  vector of one.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from adapters.server import Artefact, NotReady
from adapters.signature import Datatype, Signature, TensorSpec
from adapters.triton.settings import ModelBackend, TritonSettings

SERVED_VERSION: Final = "1"
"""Triton's own version inside each of its models: one Triton model per version (docs/decisions/0001)."""

MODEL_FILE: Final = "model.onnx"

DIGEST: Final = "penstock_digest"
"""Configuration parameter that tells which artefact a loaded version is."""

SCALARS: Final = "penstock_scalars"
"""Configuration parameter of a model that does not batch: its tensors of shape (), as a JSON list of names."""

_KIND_CPU: Final = ModelInstanceGroup.Kind.Value("KIND_CPU")

_TRITON_TYPE: Final[dict[Datatype, int]] = {
    datatype: DataType.Value("TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype.value}")
    for datatype in Datatype
}
_DATATYPE: Final[dict[int, Datatype]] = {number: datatype for datatype, number in _TRITON_TYPE.items()}


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
        _declare(config.input.add(), spec, batching=signature.batching)
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
    if not signature.batching:
        parameters[SCALARS] = json.dumps([s.name for s in (*signature.inputs, *signature.outputs) if not s.shape])
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def signature_of(config: Any) -> Signature:
    """The signature that a live server's configuration tells. Raises NotReady when it cannot be told."""
    if not config.input or not config.output:
        raise NotReady(f"Triton's configuration of {config.name!r} names no inputs or no outputs")
    scalars = frozenset(json.loads(config.parameters[SCALARS].string_value or "[]"))
    return Signature(
        inputs=tuple(_spec(config.name, each, scalars) for each in config.input),
        outputs=tuple(_spec(config.name, each, scalars) for each in config.output),
        max_batch_size=int(config.max_batch_size),
    )


def _declare(tensor: Any, spec: TensorSpec, *, batching: bool) -> None:
    tensor.name = spec.name
    tensor.data_type = _TRITON_TYPE[spec.datatype]
    tensor.dims.extend(served_wire_shape(spec))
    if batching and not spec.shape:
        tensor.reshape.SetInParent()


def _spec(model: str, tensor: Any, scalars: frozenset[str]) -> TensorSpec:
    datatype = _DATATYPE.get(tensor.data_type)
    if datatype is None:
        raise NotReady(f"tensor {tensor.name!r} of {model!r} has the data type {DataType.Name(tensor.data_type)}")
    shape = tuple(int(dimension) for dimension in tensor.dims)
    reshaped = tensor.HasField("reshape") and not tensor.reshape.shape
    scalar = shape == (1,) and (reshaped or tensor.name in scalars)
    return TensorSpec(tensor.name, datatype, () if scalar else shape)
