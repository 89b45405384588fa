"""A tensor in words: what a caller must send or gets back. Shared by the .proto text, OpenAPI and the docs page."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from adapters.signature import DYNAMIC, Datatype, TensorSpec

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

_SHOWN = 20
"""Class names that are listed in a sentence; models of a thousand classes exist."""

OPTIONAL = "Optional: all rows give it, or none."

RANGES: dict[Datatype, tuple[int, int]] = {
    Datatype.UINT8: (0, 2**8 - 1),
    Datatype.UINT16: (0, 2**16 - 1),
    Datatype.UINT32: (0, 2**32 - 1),
    Datatype.UINT64: (0, 2**64 - 1),
    Datatype.INT8: (-(2**7), 2**7 - 1),
    Datatype.INT16: (-(2**15), 2**15 - 1),
    Datatype.INT32: (-(2**31), 2**31 - 1),
    Datatype.INT64: (-(2**63), 2**63 - 1),
}
"""Smallest and largest value of the integer datatypes, whatever the wire type could hold."""


def values_in_words(tensor: TensorSpec, shape_name: str = "") -> str:
    """In words: 'FP32, shape [8, 8]: 64 values in row-major order'.

    `shape_name` is the field that says the shape, for a tensor that has one.
    """
    if tensor.shape == ():
        return f"{tensor.datatype}, one value"
    fixed = prod(d for d in tensor.shape if d != DYNAMIC)
    order = " in row-major order" if len(tensor.shape) > 1 else ""
    start = f"{tensor.datatype}, shape {list(tensor.shape)}"
    if DYNAMIC not in tensor.shape or fixed == 0:
        said = f"; {shape_name} gives its sizes" if shape_name else ""
        return f"{start}: {fixed:,} value{'' if fixed == 1 else 's'}{order if fixed else ''}{said}"
    many = "any number of values" if fixed == 1 else f"a multiple of {fixed:,} values"
    if shape_name:
        return f"{start}: {many}{order}; {shape_name} gives its sizes"
    if len(tensor.shape) == 1:
        return f"{start}: any number of values"
    return f"{start}: {many}{order}; their number gives the {_which(tensor)} dimension"


def labels_in_words(labels: Sequence[str]) -> str:
    """In words: 'Classes by index: 0 setosa, 1 versicolor'; '' without labels."""
    if not labels:
        return ""
    shown = ", ".join(f"{index} {on_one_line(label)}" for index, label in enumerate(labels[:_SHOWN]))
    return f"Classes by index: {shown}" + (f" ... {len(labels):,} in all." if len(labels) > _SHOWN else ".")


def tensor_in_sentences(tensor: TensorSpec, values: str) -> str:
    """What is known of a tensor; `values` is `values_in_words` or what stands for it."""
    sentences = [
        on_one_line(tensor.description),
        f"{values}.",
        OPTIONAL if tensor.optional else "",
        labels_in_words(tensor.labels),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def on_one_line(text: str) -> str:
    """The text without line breaks and control characters, and with what is not Unicode replaced."""
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c.isprintable() else " " for c in readable).split())


def datatype_note(datatype: Datatype) -> str:
    """What a proto field's type does not say of the values; '' when it says all."""
    match datatype:
        case Datatype.UINT8 | Datatype.INT8:
            return "One byte per value."
        case Datatype.INT16 | Datatype.UINT16:
            low, high = RANGES[datatype]
            return f"Each from {low} to {high}."
        case Datatype.FP16 | Datatype.BF16:
            return f"Rounded to {datatype} for the model."
        case Datatype.BYTES:
            return "UTF-8 text."
        case _:
            return ""


def _which(tensor: TensorSpec) -> str:
    position = tensor.shape.index(DYNAMIC)
    return _ORDINALS[position] if position < len(_ORDINALS) else f"{position + 1}th"
