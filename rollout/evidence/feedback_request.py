"""The body of `POST /v1/feedback`, parsed and checked; no I/O.

{"request_id": "...", "label": 3}                  the true label of a request with one row
{"request_id": "...", "label": [3, 1, 4]}          of every row, in order
{"request_id": "...", "label": 3, "row": 1}        of one row
{"request_id": "...", "reward": 0.8}               how good the answer was, larger is better
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from rollout.evidence.labels import Label

MAX_ID = 128
"""Characters of a request id. Envoy's own have 36."""

MAX_ROWS = 10_000
"""Labels in one body."""

MAX_LABEL = 256
"""Characters of a text label."""

_FIELDS = ("request_id", "label", "reward", "row")


class Kind(StrEnum):
    LABEL = "label"
    REWARD = "reward"


@dataclass(frozen=True, slots=True)
class Entry:
    """Feedback on one row. `row_given` is false when the caller did not say which, and a request has only one."""

    row: int
    row_given: bool
    kind: Kind
    value: Label


@dataclass(frozen=True, slots=True)
class Feedback:
    request_id: str
    entries: tuple[Entry, ...]


class InvalidFeedback(ValueError):
    """The body is not feedback; says which field, what was expected and what came."""

    def __init__(self, field: str, expected: str, received: str) -> None:
        where = f"{field}: " if field else ""
        super().__init__(f"{where}expected {expected}, received {received}")
        self.field = field
        self.expected = expected
        self.received = received


def parse_feedback(body: bytes) -> Feedback:
    """Raises InvalidFeedback, whatever the bytes are."""
    if not body.strip():
        raise InvalidFeedback("", 'a JSON object such as {"request_id": "...", "label": 3}', "an empty body")
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidFeedback("", "a JSON object", f"text that is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidFeedback("", "a JSON object", _shown(value))
    for name in value:
        if name not in _FIELDS:
            raise InvalidFeedback(_shown_text(name), f"one of {', '.join(_FIELDS)}", "an unknown field")
    kind = _kind(value)
    return Feedback(_request_id(value), _entries(value, kind))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Mapping[str, Any]) -> Kind:
    match value.get("label") is not None, value.get("reward") is not None:
        case True, False:
            return Kind.LABEL
        case False, True:
            return Kind.REWARD
        case True, True:
            raise InvalidFeedback("label", "either label or reward", "both; send two requests")
        case _:
            raise InvalidFeedback("label", "label or reward", "neither")


def _request_id(value: Mapping[str, Any]) -> str:
    received = value.get("request_id")
    expected = f"the x-request-id of a prediction's response, 1 to {MAX_ID} visible ASCII characters"
    if received is None:
        raise InvalidFeedback("request_id", expected, "nothing")
    if not isinstance(received, str):
        raise InvalidFeedback("request_id", expected, _shown(received))
    if not 1 <= len(received) <= MAX_ID:
        raise InvalidFeedback("request_id", expected, f"{len(received)} characters")
    if not all("!" <= character <= "~" for character in received):
        raise InvalidFeedback("request_id", expected, _shown(received))
    return received


def _entries(value: Mapping[str, Any], kind: Kind) -> tuple[Entry, ...]:
    received = value[kind]
    row = value.get("row")
    if isinstance(received, list):
        if row is not None:
            raise InvalidFeedback("row", f"no row when {kind} lists every row", _shown(row))
        if not 1 <= len(received) <= MAX_ROWS:
            raise InvalidFeedback(kind, f"1 to {MAX_ROWS} values", str(len(received)))
        return tuple(Entry(i, True, kind, _value(kind, f"{kind}[{i}]", item)) for i, item in enumerate(received))
    if row is not None and (isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < 2**31):
        raise InvalidFeedback("row", "the row's index in the request, counted from 0", _shown(row))
    return (Entry(row or 0, row is not None, kind, _value(kind, kind, received)),)


def _value(kind: Kind, field: str, received: object) -> Label:
    return _label(field, received) if kind is Kind.LABEL else _reward(field, received)


def _label(field: str, received: object) -> Label:
    expected = f"a number, true, false or a text of at most {MAX_LABEL} characters"
    match received:
        case bool() | int():
            if len(str(received)) <= MAX_LABEL:
                return received
        case float():
            if math.isfinite(received):
                return received
        case str():
            if len(received) > MAX_LABEL:
                raise InvalidFeedback(field, expected, f"{len(received)} characters")
            if _storable(received):
                return received
    raise InvalidFeedback(field, expected, _shown(received))


def _reward(field: str, received: object) -> float:
    if not isinstance(received, bool) and isinstance(received, int | float):
        try:
            reward = float(received)
        except OverflowError:
            reward = math.inf
        if math.isfinite(reward):
            return reward
    raise InvalidFeedback(field, "a finite number, larger for better answers", _shown(received))


def _storable(text: str) -> bool:
    """Lone surrogates can be written in JSON and cannot be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    try:
        return _shown_text(json.dumps(value))
    except (ValueError, RecursionError):
        return type(value).__name__


def _shown_text(text: str) -> str:
    printable = text.encode("ascii", "backslashreplace").decode()
    return printable if len(printable) <= 60 else printable[:57] + "..."
