"""Class names in an ONNX file's metadata -> labels of its outputs. A part of `adapters.onnx.describe`.

ONNX has no field for them, so exporters write them into `metadata_props`, each its own way:

- Ultralytics (YOLO): `names`, a Python dictionary from index to name;
- Hugging Face and others: `id2label`, a JSON object from index to name;
- others: `labels`, `classes`, `class_names`, a JSON list or names separated by commas or lines;
- `labels.<output>` names the output itself (Penstock's own convention, for models with several).

Without an output's name they belong to the one output that has a dimension of that size (of several, the one whose
last dimension it is), and to the predicted index beside it. Names that fit nothing, or several, are left alone.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from adapters.signature import Datatype, TensorSpec

KEYS: Final = ("names", "id2label", "labels", "classes", "class_names")

_INDEX_TYPES: Final = frozenset({Datatype.INT32, Datatype.INT64, Datatype.UINT32, Datatype.UINT64})


def with_labels(outputs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """The outputs with the class names that the metadata gives them."""
    common = next((names for key in KEYS if (names := parse_labels(metadata.get(key, "")))), ())
    owners = _owners(outputs, len(common)) if common else frozenset()
    return tuple(
        replace(tensor, labels=parse_labels(metadata.get(f"labels.{tensor.name}", "")))
        if f"labels.{tensor.name}" in metadata
        else replace(tensor, labels=common if tensor.name in owners else ())
        for tensor in outputs
    )


def parse_labels(text: str) -> tuple[str, ...]:
    """Class names by index, in whatever form they are written; () when they are not a list without gaps."""
    if not text.strip():
        return ()
    value = _literal(text)
    if isinstance(value, Mapping):
        by_index = {str(index): name for index, name in value.items()}
        value = [by_index.get(str(index)) for index in range(len(by_index))]
    if not isinstance(value, list | tuple) or not value:
        return ()
    return tuple(value) if all(isinstance(name, str) and name for name in value) else ()


def _literal(text: str) -> Any:
    """JSON, else a Python literal, else names separated by lines or commas."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    separator = "\n" if "\n" in text.strip() else ","
    return [name.strip() for name in text.strip().split(separator)]


def _owners(outputs: Sequence[TensorSpec], classes: int) -> frozenset[str]:
    """The outputs that a list of so many class names describes."""
    last = [tensor.name for tensor in outputs if tensor.shape[-1:] == (classes,)]
    scores = last or [tensor.name for tensor in outputs if classes in tensor.shape]
    indices = [t.name for t in outputs if t.datatype in _INDEX_TYPES and t.shape in ((), (1,))]
    if len(scores) != 1:
        return frozenset()
    return frozenset((*scores, *indices)) if len(indices) == 1 else frozenset(scores)
