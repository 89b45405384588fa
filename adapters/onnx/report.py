"""What the probe process tells of an ONNX file: values that travel as JSON between it and `adapters.onnx.describe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.signature import DYNAMIC, Datatype

_TENSOR: Final[Mapping[str, Datatype]] = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}
"""onnxruntime's type names that can be served; the others (complex, float8, int4) no inference protocol knows."""


@dataclass(frozen=True, slots=True)
class ValueReport:
    """One graph input or output: onnxruntime's type name, and per dimension a size, a symbol, or None (unnamed).

    `optional`: the input has a default value, or is of an optional type. `doc`: what the author wrote of it.
    """

    name: str
    type: str
    dims: tuple[int | str | None, ...]
    optional: bool = False
    doc: str = ""

    @property
    def datatype(self) -> Datatype | None:
        """None when it is not a tensor, or one of a type that cannot be served."""
        return _TENSOR.get(self.type)

    @property
    def tensor_type(self) -> Datatype:
        return _TENSOR[self.type]

    @property
    def is_tensor(self) -> bool:
        return self.type.startswith("tensor(")

    @property
    def shape(self) -> tuple[int, ...]:
        """All dimensions, dynamic ones as DYNAMIC. Some writers give a size below 0 for "any"."""
        return tuple(d if isinstance(d, int) and d >= 0 else DYNAMIC for d in self.dims)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "dims": list(self.dims),
            "optional": self.optional,
            "doc": self.doc,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ValueReport:
        return cls(
            name=str(value["name"]),
            type=str(value["type"]),
            dims=tuple(value["dims"]),
            optional=bool(value["optional"]),
            doc=str(value["doc"]),
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """What a run with made-up rows showed: whether the model takes rows in batches, and if not, why not."""

    batches: bool
    why_not: str = ""

    @classmethod
    def fail(cls, why_not: str) -> Trial:
        return cls(batches=False, why_not=why_not)


@dataclass(frozen=True, slots=True)
class Graph:
    """A file that onnxruntime accepts. `trial` is None where the declared shapes already rule batching out.

    `inputs` are those that callers may give; `kept` names those that keep their default values. `metadata` is the
    file's own, as its exporter wrote it. `dynamic_size` is the smallest size for the dynamic dimensions that a trial
    run took.
    """

    inputs: tuple[ValueReport, ...]
    outputs: tuple[ValueReport, ...]
    trial: Trial | None = None
    kept: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    dynamic_size: int = 1

    @property
    def may_batch(self) -> bool:
        """Whether every tensor has a dynamic first dimension, the same symbol on all inputs that name it.

        Outputs may name it differently: exporters make symbols up for outputs, and the trial run tells the truth.
        """
        tensors = [v for v in (*self.inputs, *self.outputs) if v.is_tensor]
        symbols = {v.dims[0] for v in self.inputs if v.dims and isinstance(v.dims[0], str)}
        return bool(self.inputs) and len(symbols) <= 1 and all(v.shape[:1] == (DYNAMIC,) for v in tensors)


@dataclass(frozen=True, slots=True)
class FileReport:
    """The probe's answer: a graph, or the reason why there is none."""

    graph: Graph | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.graph is None:
            return {"error": self.error}
        trial = self.graph.trial
        return {
            "inputs": [v.to_json() for v in self.graph.inputs],
            "outputs": [v.to_json() for v in self.graph.outputs],
            "trial": None if trial is None else {"batches": trial.batches, "why_not": trial.why_not},
            "kept": list(self.graph.kept),
            "metadata": dict(self.graph.metadata),
            "dynamic_size": self.graph.dynamic_size,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FileReport:
        if "error" in value:
            return cls(error=str(value["error"]))
        trial = value["trial"]
        return cls(
            graph=Graph(
                inputs=tuple(ValueReport.from_json(v) for v in value["inputs"]),
                outputs=tuple(ValueReport.from_json(v) for v in value["outputs"]),
                trial=None if trial is None else Trial(bool(trial["batches"]), str(trial["why_not"])),
                kept=tuple(str(name) for name in value["kept"]),
                metadata={str(key): str(text) for key, text in value["metadata"].items()},
                dynamic_size=int(value["dynamic_size"]),
            )
        )
