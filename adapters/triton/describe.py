"""The signature of a version as a live server tells it: its ModelConfig, its ModelMetadata, and its class names.

Used by `adapters.triton.client` for versions that Penstock did not load itself. What the two messages say goes through
pure functions. Triton's rules that matter here:

- `dims` leaves out the batch dimension exactly when `max_batch_size` is above 0; metadata always gives whole shapes.
- Callers send `dims`; `reshape` is what the model sees instead. A tensor of `dims: [1]` that is reshaped to [] has no
  dimension of its own.
- Optional inputs and the transaction policy are in the configuration alone.
- Class names are in a file of the server's repository, which no call returns. But the classification extension
  answers "value:index:name" for the highest values, so one test inference that asks for all of them tells every name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import tritonclient.grpc.aio as triton
from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import DataType
from tritonclient.utils import InferenceServerException

from adapters.open_inference import signature_of_metadata
from adapters.sample import DYNAMIC_SIZES
from adapters.server import NotReady, Served
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.ask_once import SEQUENCE, ask_once
from adapters.triton.config import SHAPES, TRITON_TYPE
from adapters.triton.sample_inputs import sample_inputs

_DATATYPE: Final[Mapping[int, Datatype]] = {number: datatype for datatype, number in TRITON_TYPE.items()}

_MOST_CLASSES: Final = 1 << 20


async def describe_served(client: Any, name: str, version: str = "", *, timeout_s: float) -> Signature:
    """What the server says of its model `name`; `client` is a `tritonclient.grpc.aio` client.

    A server of another make, which knows Open Inference Protocol and not Triton's ModelConfig, is believed by its
    metadata alone. Raises NotReady when what it says is no signature, and tritonclient's InferenceServerException.
    """
    metadata = json_format.MessageToDict(await client.get_model_metadata(name, version, client_timeout=timeout_s))
    try:
        config = (await client.get_model_config(name, version, client_timeout=timeout_s)).config
    except InferenceServerException as error:
        if error.status() != "StatusCode.UNIMPLEMENTED":
            raise
        return signature_of_metadata(metadata)
    signature = signature_of(config, metadata)
    signature = replace(
        signature, dynamic_size=await _dynamic_size(client, Served(name, version), signature, timeout_s)
    )
    labelled = [output.name for output in config.output if output.label_filename]
    if not labelled or signature.obstacles or signature.decoupled:
        return signature
    labels, why = await _labels(client, name, version, signature, labelled, timeout_s)
    return replace(
        signature,
        outputs=tuple(replace(spec, labels=labels.get(spec.name, ())) for spec in signature.outputs),
        notes=(*signature.notes, *([f"the class names are not known: {why}"] if why else ())),
    )


def signature_of(config: Any, metadata: Mapping[str, Any]) -> Signature:
    """The signature that a configuration and the metadata beside it tell. Raises NotReady when they tell none.

    `metadata` is the JSON form; it is what is believed of a model whose configuration names no tensors, and of one
    with shape tensors, which have no rows although the model batches.
    """
    decoupled = bool(config.model_transaction_policy.decoupled)
    obstacles = (SEQUENCE,) if config.HasField("sequence_batching") else ()
    tensors = (*config.input, *config.output)
    whole = not config.input or not config.output or (config.max_batch_size > 0 and any(map(_is_shape, tensors)))
    if whole:
        return replace(signature_of_metadata(metadata), decoupled=decoupled, obstacles=obstacles)
    shapes = json.loads(config.parameters[SHAPES].string_value or "{}")
    return Signature(
        inputs=tuple(_spec(config.name, each, shapes, optional=each.optional) for each in config.input),
        outputs=tuple(_spec(config.name, each, shapes) for each in config.output),
        max_batch_size=int(config.max_batch_size),
        decoupled=decoupled,
        obstacles=obstacles,
    )


def _is_shape(tensor: Any) -> bool:
    return bool(tensor.is_shape_tensor)


def _spec(model: str, tensor: Any, shapes: Mapping[str, Sequence[int]], *, optional: bool = False) -> TensorSpec:
    datatype = _DATATYPE.get(tensor.data_type)
    if datatype is None:
        raise NotReady(f"tensor {tensor.name!r} of {model!r} has the data type {DataType.Name(tensor.data_type)}")
    shape = tuple(int(dimension) for dimension in tensor.dims)
    if tensor.name in shapes:
        shape = tuple(shapes[tensor.name])
    elif shape == (1,) and tensor.HasField("reshape") and not tensor.reshape.shape:
        shape = ()
    return TensorSpec(tensor.name, datatype, shape, optional=optional)


async def _dynamic_size(client: Any, served: Served, signature: Signature, timeout_s: float) -> int:
    """The smallest size for the dynamic dimensions that the model takes; 1 when it takes none of those tried."""
    if any(DYNAMIC in spec.shape for spec in signature.inputs):
        for size, inputs in zip(DYNAMIC_SIZES, sample_inputs(signature), strict=False):
            with suppress(InferenceServerException):
                await ask_once(client, served, signature, inputs, timeout_s=timeout_s)
                return size
    return 1


async def _labels(
    client: Any, name: str, version: str, signature: Signature, labelled: Sequence[str], timeout_s: float
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Class names by output, and why there are none."""
    wanted = [triton.InferRequestedOutput(output, class_count=_MOST_CLASSES) for output in labelled]
    why = ""
    for inputs in sample_inputs(signature):
        try:
            answer = await client.infer(name, inputs, model_version=version, outputs=wanted, client_timeout=timeout_s)
        except InferenceServerException as error:
            why = why or f"a test inference failed: {error.message()}"
            continue
        return {output: _names(answer.as_numpy(output).ravel()) for output in labelled}, ""
    return {}, why


def _names(classes: Sequence[bytes]) -> tuple[str, ...]:
    """Names by index out of "value:index:name"; () when not every index has one."""
    found: dict[int, str] = {}
    for each in classes:
        _, index, *rest = each.decode("utf-8", "replace").split(":", 2)
        if rest:
            found[int(index)] = rest[0]
    return tuple(found[index] for index in range(len(found))) if set(found) == set(range(len(classes))) else ()
