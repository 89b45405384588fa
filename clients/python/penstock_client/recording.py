"""Answers of a real gateway in a file, for the fakes: what was asked, and what came back.

The file is JSON, and one format: what the Python client records, the TypeScript client replays, and the other way
round. Inputs and answers are rows, as typed JSON has them; a recording made over typed gRPC (by `GrpcClient`, by
TypeScript) has its tensors flat, row-major. `descriptor` is the model's protobuf, with which the fake gateway answers
typed gRPC. Integers that a JavaScript number cannot hold are {"int": "9007199254740993"}, bytes are {"b64": "AP8="}; so
are UINT8 and INT8 tensors that were recorded over gRPC, whose field is bytes.

An input is found again by model, major, pinned version and values. Nested and flat are the same where the shapes do
not contradict, and numbers are equal when six digits are, because a float32 array and a list of the same numbers
differ after that.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from penstock_client.answer import Answer
from penstock_client.errors import PenstockError, error_for
from penstock_client.wire import Row, from_json, to_json

FORMAT = 1

_SAFE = 2**53 - 1
"""The largest integer that is exact in JavaScript."""

ModelApi: TypeAlias = tuple[str, int]
"""A model's key (its name with '_' for '-', as protobuf has it) and the major of its API."""


class NotRecorded(LookupError):
    """The fake has no answer for this input: record it from a real gateway, or correct the input."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. `inputs` are JSON values: a row, or a list of rows."""

    model: str
    major: int
    version: int | None
    inputs: Any

    @classmethod
    def of(cls, model: str, inputs: Row | Sequence[Row], *, major: int = 1, version: int | None = None) -> Asked:
        return cls(model, major, version, json.loads(to_json(inputs)))

    @property
    def api(self) -> ModelApi:
        return self.model.replace("-", "_"), self.major

    @property
    def rows(self) -> list[Row]:
        return list(self.inputs) if isinstance(self.inputs, list) else [self.inputs]

    def matches(self, other: Asked) -> bool:
        """Whether it is the same question. One row and a list of it are: the gateway answers both alike."""
        if (self.api, self.version, len(self.rows)) != (other.api, other.version, len(other.rows)):
            return False
        return all(_same(a, b) for a, b in zip(self.rows, other.rows, strict=True))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A PenstockError as values."""

    code: int
    message: str
    reason: str
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, error: PenstockError) -> Refusal:
        return cls(int(error.code), error.message, error.reason, error.metadata)

    def error(self, request_id: str) -> PenstockError:
        return error_for(self.code, self.message, reason=self.reason, metadata=self.metadata, request_id=request_id)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call."""

    asked: Asked
    outcome: Answer | Refusal

    @classmethod
    def of(cls, asked: Asked, outcome: Answer | PenstockError) -> Recorded:
        return cls(asked, Refusal.of(outcome) if isinstance(outcome, PenstockError) else outcome)

    def answer(self, request_id: str) -> Answer:
        """Raises the recorded error when it was one."""
        match self.outcome:
            case Answer() as answer:
                return Answer(answer.rows, answer.batched, answer.model, answer.version, request_id)
            case Refusal() as refusal:
                raise refusal.error(request_id)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds. `descriptors`: a serialised FileDescriptorSet for each API where it was had."""

    calls: Sequence[Recorded]
    descriptors: Mapping[ModelApi, bytes] = field(default_factory=dict)

    def found(self, asked: Asked) -> Recorded | None:
        """The last that matches."""
        return next((call for call in reversed(self.calls) if call.asked.matches(asked)), None)


def write(path: Path, recording: Recording) -> None:
    """Whole or not at all."""
    models = [
        {"model": key, "major": major, "descriptor": base64.b64encode(descriptor).decode()}
        for (key, major), descriptor in recording.descriptors.items()
    ]
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(
        f'{{"penstock_recording": {FORMAT}, "models": [{_lines(models)}], '
        f'"calls": [{_lines(_written(call) for call in recording.calls)}]}}\n',
        encoding="utf-8",
    )
    beside.replace(path)


def read(path: Path) -> Recording:
    """Raises ValueError for a file that is no recording, OSError for one that cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["penstock_recording"] != FORMAT:
            raise ValueError(f"format {value['penstock_recording']!r}, expected {FORMAT}")
        models = {(str(m["model"]), int(m["major"])): base64.b64decode(m["descriptor"]) for m in value["models"]}
        return Recording(tuple(_read(call) for call in value["calls"]), models)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a recording of penstock_client: {error!r}") from error


def _lines(values: Iterable[Any]) -> str:
    return "\n  " + ",\n  ".join(to_json(_exact(value)).decode() for value in values) + "\n"


def _exact(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: _exact(member) for name, member in value.items()}
        case list() | tuple():
            return [_exact(member) for member in value]
        case int() if abs(value) > _SAFE:
            return {"int": str(value)}
        case _:
            return value


def _integers(value: Any) -> Any:
    """The inverse of `_exact`."""
    match value:
        case {"int": str(digits)}:
            return int(digits)
        case dict():
            return {name: _integers(member) for name, member in value.items()}
        case list():
            return [_integers(member) for member in value]
        case _:
            return value


def _written(call: Recorded) -> dict[str, Any]:
    asked = call.asked
    said = {"model": asked.model, "major": asked.major, "version": asked.version, "inputs": asked.inputs}
    match call.outcome:
        case Answer() as a:
            return {**said, "answer": {"rows": a.rows, "batched": a.batched, "model": a.model, "version": a.version}}
        case Refusal() as r:
            error = {"code": r.code, "message": r.message, "reason": r.reason, "metadata": r.metadata}
            return {**said, "error": error}


def _read(value: Mapping[str, Any]) -> Recorded:
    asked = Asked(value["model"], int(value["major"]), value["version"], _integers(value["inputs"]))
    if "answer" not in value:
        return Recorded(asked, Refusal(**value["error"]))
    answer = value["answer"]
    rows = tuple({name: from_json(_integers(output)) for name, output in row.items()} for row in answer["rows"])
    return Recorded(asked, Answer(rows, answer["batched"], answer["model"], int(answer["version"]), ""))


def _same(one: Row, other: Row) -> bool:
    (flat, shapes), (other_flat, other_shapes) = _flat(one), _flat(other)
    if flat.keys() != other_flat.keys() or not all(_equal(flat[name], other_flat[name]) for name in flat):
        return False
    return all(shapes[name] == other_shapes[name] for name in shapes.keys() & other_shapes)


def _equal(one: list[Any], other: list[Any]) -> bool:
    """A list of bytes is what gRPC has for a tensor of them, signed or not; typed JSON has their numbers."""
    if one == other:
        return True
    for bytes_, values in ((one, other), (other, one)):
        match bytes_:
            case [{"b64": str(text)}]:
                return base64.b64decode(text) == _as_bytes(values)
    return False


def _as_bytes(values: list[Any]) -> bytes | None:
    try:
        return bytes(int(value) & 0xFF for value in values)
    except (ValueError, TypeError):
        return None


def _flat(row: Row) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Values by name, and shapes where they are said: by nesting, or by a `<name>_shape` beside flat values."""
    shapes = {name: _shape(value) for name, value in row.items() if isinstance(value, list) and _shape(value)[1:]}
    said = {name.removesuffix("_shape"): value for name, value in row.items() if _says_shape(name, row)}
    flat = {name: list(_leaves(value)) for name, value in row.items() if not _says_shape(name, row)}
    # An input without values counts as left out.
    return {name: values for name, values in flat.items() if values}, {**shapes, **said}


def _says_shape(name: str, row: Row) -> bool:
    return name.endswith("_shape") and name.removesuffix("_shape") in row


def _shape(value: Any) -> list[int]:
    return [len(value), *(_shape(value[0]) if value else ())] if isinstance(value, list) else []


def _leaves(value: Any) -> Iterable[Any]:
    match value:
        case list():
            for member in value:
                yield from _leaves(member)
        case bool() | str() | None | dict():
            yield value
        case _:
            yield f"{value:.6g}" if abs(value) < 1e6 else f"{value}"
