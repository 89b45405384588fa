"""What a model version takes and gives, in the terms of its inference server.

A `Signature` is read from an artefact or from a live server and is the one input of the generated API: contract,
messages, Envoy configuration and docs are all functions of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

DYNAMIC = -1
"""A dimension that the caller chooses."""


class Datatype(StrEnum):
    """Open Inference Protocol datatypes; values are the protocol's own spelling."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def width(self) -> int:
        """Bytes of one element on the wire; 0 for BYTES, whose elements carry their own length."""
        return _WIDTHS[self]


_WIDTHS: Mapping[Datatype, int] = {
    Datatype.BOOL: 1,
    Datatype.UINT8: 1,
    Datatype.UINT16: 2,
    Datatype.UINT32: 4,
    Datatype.UINT64: 8,
    Datatype.INT8: 1,
    Datatype.INT16: 2,
    Datatype.INT32: 4,
    Datatype.INT64: 8,
    Datatype.FP16: 2,
    Datatype.BF16: 2,
    Datatype.FP32: 4,
    Datatype.FP64: 8,
    Datatype.BYTES: 0,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    `shape` leaves out the batch dimension of a model that batches; `DYNAMIC` (-1) marks a dimension the caller
    chooses; `()` is a scalar. `optional` inputs may be left out of a request. `labels` are the class names of an
    output that has a label file, by index. `description` is what the model's author wrote of the tensor: its meaning
    and unit.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False
    labels: tuple[str, ...] = ()
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "datatype": self.datatype.value,
            "shape": list(self.shape),
            **({"optional": True} if self.optional else {}),
            **({"labels": list(self.labels)} if self.labels else {}),
            **({"description": self.description} if self.description else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TensorSpec:
        return cls(
            name=str(value["name"]),
            datatype=Datatype(value["datatype"]),
            shape=tuple(int(d) for d in value["shape"]),
            optional=bool(value.get("optional", False)),
            labels=tuple(str(label) for label in value.get("labels", ())),
            description=str(value.get("description", "")),
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of a version.

    `max_batch_size` is the server's: 0 means the model does not batch, and shapes are then whole.
    `notes` says in words what could not be described (an output that is not a tensor, say).
    `decoupled`: the model answers a request with any number of responses, so only a stream can carry them.
    `obstacles` says, a sentence each, why a typed call cannot be made of a request whatever its tensors are (a model
    that needs a sequence id, say). `dynamic_size`: a size that may stand for the dynamic dimensions in an example; some
    models take none below the size of a window.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int = 0
    notes: tuple[str, ...] = ()
    decoupled: bool = False
    obstacles: tuple[str, ...] = ()
    dynamic_size: int = 1

    @property
    def batching(self) -> bool:
        return self.max_batch_size > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [t.to_json() for t in self.inputs],
            "outputs": [t.to_json() for t in self.outputs],
            "max_batch_size": self.max_batch_size,
            "notes": list(self.notes),
            **({"decoupled": True} if self.decoupled else {}),
            **({"obstacles": list(self.obstacles)} if self.obstacles else {}),
            **({"dynamic_size": self.dynamic_size} if self.dynamic_size != 1 else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Signature:
        return cls(
            inputs=tuple(TensorSpec.from_json(t) for t in value["inputs"]),
            outputs=tuple(TensorSpec.from_json(t) for t in value["outputs"]),
            max_batch_size=int(value["max_batch_size"]),
            notes=tuple(value.get("notes", ())),
            decoupled=bool(value.get("decoupled", False)),
            obstacles=tuple(str(obstacle) for obstacle in value.get("obstacles", ())),
            dynamic_size=int(value.get("dynamic_size", 1)),
        )
