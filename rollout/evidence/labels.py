"""When is a predicted label the true one: comparison by value, whatever the two sides' JSON types are.

A model answers 3, its caller's database holds "3"; a boolean model answers true, the label says 1. Used by the
feedback store.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

Label = str | int | float | bool

_TRUTH = {"true": True, "false": False}


def same_label(predicted: Label, actual: Label) -> bool:
    """Whether both name the same class.

    Two strings are compared letter by letter. A number and a string are the same when the string writes that number.
    A boolean equals 1 and 0, and their words.
    """
    if isinstance(predicted, str) and isinstance(actual, str):
        return predicted == actual
    if isinstance(predicted, bool) or isinstance(actual, bool):
        truth = _truth(predicted)
        return truth is not None and truth is _truth(actual)
    number = _number(predicted)
    return number is not None and number == _number(actual)


def _truth(label: Label) -> bool | None:
    if isinstance(label, str) and label.lower() in _TRUTH:
        return _TRUTH[label.lower()]
    number = _number(label)
    return bool(number) if number in (0, 1) else None


def _number(label: Label) -> Decimal | None:
    # Decimal, because class numbers may be 64-bit integers that a float cannot hold.
    try:
        number = Decimal(int(label)) if isinstance(label, bool) else Decimal(str(label).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
