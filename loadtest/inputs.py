"""What users send: recorded examples, or random ones in the form and within the bounds of the model's contract.

The form is the contract's own example (`/v1/models/<model>/openapi.json` has one), so that every size, also of a
dynamic dimension, is one the model is known to take; the values are drawn anew for each example. Used by
`loadtest.surface`, which reads the documents; this only turns values into values.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.examples import Example

RANDOM_EXAMPLES = 256
"""Different random examples of one run: enough that no cache and no branch sees the same one over and over."""

_WHOLE = ("INT", "UINT")
_SPAN = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767), "UINT16": (0, 65535)}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as Open Inference metadata says it. `shape` includes the batch dimension of a batching model."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Between which values numbers are drawn. The default suits probabilities, embeddings' indices and most else."""

    low: float = 0.0
    high: float | None = None

    def of(self, datatype: str) -> tuple[float, float]:
        """The bounds for a datatype, cut to what it holds; without a `high` 9 for whole numbers, else 1."""
        high = self.high if self.high is not None else 9.0 if datatype.startswith(_WHOLE) else 1.0
        least, most = _SPAN.get(datatype, (0 if datatype.startswith("UINT") else -(2**31), 2**31 - 1))
        if not datatype.startswith(_WHOLE):
            return self.low, high
        return min(max(self.low, least), most), max(min(high, most), least)


def random_examples(
    form: Mapping[str, Any], datatypes: Mapping[str, str], values: Range, *, seed: int, count: int = RANDOM_EXAMPLES
) -> tuple[Example, ...]:
    """Examples in the form of one instance, whose numbers, strings and bytes are drawn by the inputs' datatypes."""
    draw = random.Random(seed)
    return tuple(
        Example({name: _like(value, datatypes[name], values, draw) for name, value in form.items()}, label=None)
        for _ in range(count)
    )


def blank(tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    """The form of a model that has no typed API, hence no example: every dynamic dimension is 1."""
    return {
        tensor.name: _nested(tuple(max(size, 1) if size < 0 else size for size in tensor.shape), _zero(tensor.datatype))
        for tensor in tensors
    }


def flat(value: Any) -> list[Any]:
    """The elements of a nested array, row-major; a scalar is one element."""
    if not isinstance(value, list | tuple):
        return [value]
    return [element for part in value for element in flat(part)]


def shape_of(value: Any) -> tuple[int, ...]:
    """The sizes of a nested array, outermost first; () of a scalar."""
    if not isinstance(value, list | tuple):
        return ()
    return (len(value), *(shape_of(value[0]) if value else ()))


def _zero(datatype: str) -> Any:
    return {"BYTES": "text", "BOOL": False}.get(datatype, 0)


def _nested(shape: tuple[int, ...], value: Any) -> Any:
    return [_nested(shape[1:], value) for _ in range(shape[0])] if shape else value


def _like(value: Any, datatype: str, values: Range, draw: random.Random) -> Any:
    if isinstance(value, list):
        return [_like(element, datatype, values, draw) for element in value]
    low, high = values.of(datatype)
    if isinstance(value, str) and datatype in _SPAN:
        # Base64 of a whole tensor of bytes.
        count = len(base64.b64decode(value))
        return base64.b64encode(bytes(draw.randint(int(low), int(high)) & 0xFF for _ in range(count))).decode()
    if datatype == "BYTES":
        return "".join(draw.choices(LETTERS, k=max(1, len(str(value)))))
    if datatype == "BOOL":
        return draw.random() < 0.5
    if datatype.startswith(_WHOLE):
        return draw.randint(int(low), int(high))
    return draw.uniform(low, high)
