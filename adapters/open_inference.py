"""Open Inference Protocol metadata -> Signature: for servers that tell nothing more (MLServer, KServe's runtimes).

A pure function of `GET /v2/models/<model>`'s JSON, which ModelMetadata over gRPC says too. It gives whole shapes and no
batch size, and a leading -1 may be rows or a sequence: so the model is taken as one that does not batch, which is
right for either, unless whoever runs the server says how many rows it takes.
Protocol: https://github.com/open-inference/open-inference-protocol (Model Metadata).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.server import NotReady
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec


def signature_of_metadata(metadata: Mapping[str, Any], *, max_batch_size: int = 0) -> Signature:
    """The signature that the metadata tells. Raises NotReady with the reason when it tells none.

    `max_batch_size` above 0: the first dimension of every tensor is the rows of a batch, at most so many.
    """
    model = str(metadata.get("name", ""))
    signature = Signature(
        inputs=_specs(model, metadata, "inputs", batching=max_batch_size > 0),
        outputs=_specs(model, metadata, "outputs", batching=max_batch_size > 0),
        max_batch_size=max_batch_size,
    )
    if not signature.inputs or not signature.outputs:
        raise NotReady(
            f"the metadata of {model!r} names no inputs or no outputs: with MLServer, list them in the model's "
            "model-settings.json (inputs, outputs)"
        )
    return signature


def _specs(model: str, metadata: Mapping[str, Any], side: str, *, batching: bool) -> tuple[TensorSpec, ...]:
    tensors = metadata.get(side) or []
    if not isinstance(tensors, list) or not all(isinstance(tensor, Mapping) for tensor in tensors):
        raise NotReady(f"the metadata of {model!r}: {side} is not a list of tensors")
    return tuple(_spec(f"{side[:-1]} {tensor.get('name')!r} of {model!r}", tensor, batching) for tensor in tensors)


def _spec(where: str, tensor: Mapping[str, Any], batching: bool) -> TensorSpec:
    try:
        datatype = Datatype(str(tensor.get("datatype", "")).upper())
    except ValueError as error:
        received = tensor.get("datatype")
        raise NotReady(f"{where} has the datatype {received!r}, which the protocol does not know") from error
    try:
        # protobuf's JSON writes 64-bit integers as strings.
        shape = tuple(int(size) for size in tensor.get("shape") or ())
    except (TypeError, ValueError, OverflowError) as error:
        raise NotReady(f"{where} has the shape {tensor.get('shape')!r}: expected a list of integers") from error
    if batching and shape[:1] != (DYNAMIC,):
        raise NotReady(f"{where} has the shape {list(shape)}: expected -1 first, for the rows of a batch")
    return TensorSpec(str(tensor.get("name", "")), datatype, shape[1:] if batching else shape)
