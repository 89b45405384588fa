"""Answers of a real gateway in a file, for the fakes: what was asked, and what came back.

The file is JSON, the same for the Python and the TypeScript client. An input is found again by model, pinned version
and values; numbers count as equal when six digits are, because a float32 array and a list of the same numbers differ
after that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock_client.answer import Answer
from penstock_client.errors import PenstockError, error_for
from penstock_client.wire import Row, from_json, to_json

FORMAT = 1


class NotRecorded(LookupError):
    """The fake has no answer for this input: record it from a real gateway, or correct the input."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A PenstockError as values."""

    code: int
    message: str
    reason: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call. `inputs` are a row, or a list of rows; the outcome is an answer or a refusal."""

    model: str
    version: int | None
    inputs: Any
    outcome: Answer | Refusal

    @property
    def key(self) -> str:
        return key_of(self.model, self.version, self.inputs)

    def answer(self, request_id: str) -> Answer:
        """Raises the recorded error when it was one."""
        match self.outcome:
            case Answer() as answer:
                return Answer(answer.rows, answer.batched, answer.model, answer.version, request_id)
            case Refusal() as refusal:
                raise self.error(refusal, request_id)

    @staticmethod
    def error(refusal: Refusal, request_id: str) -> PenstockError:
        return error_for(
            refusal.code,
            refusal.message,
            reason=refusal.reason,
            metadata=refusal.metadata,
            request_id=request_id,
        )


def key_of(model: str, version: int | None, inputs: Row | Sequence[Row]) -> str:
    return f"{model} {version or ''} {json.dumps(_rounded(json.loads(to_json(inputs))), sort_keys=True)}"


def answered(model: str, version: int | None, inputs: Row | Sequence[Row], outcome: Answer | PenstockError) -> Recorded:
    if isinstance(outcome, PenstockError):
        refusal = Refusal(int(outcome.code), outcome.message, outcome.reason, outcome.metadata)
        return Recorded(model, version, json.loads(to_json(inputs)), refusal)
    return Recorded(model, version, json.loads(to_json(inputs)), outcome)


def write(path: Path, calls: Sequence[Recorded]) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    lines = ",\n  ".join(to_json(_written(call)).decode() for call in calls)
    beside.write_text(f'{{"penstock_recording": {FORMAT}, "calls": [\n  {lines}\n]}}\n', encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> tuple[Recorded, ...]:
    """Raises ValueError for a file that is no recording, OSError for one that cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["penstock_recording"] != FORMAT:
            raise ValueError(f"format {value['penstock_recording']!r}, expected {FORMAT}")
        return tuple(_read(call) for call in value["calls"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a recording of penstock_client: {error!r}") from error


def _written(call: Recorded) -> dict[str, Any]:
    kind = "answer" if isinstance(call.outcome, Answer) else "error"
    return {"model": call.model, "version": call.version, "inputs": call.inputs, kind: asdict(call.outcome)}


def _read(value: Mapping[str, Any]) -> Recorded:
    outcome: Answer | Refusal
    if "answer" in value:
        answer = value["answer"]
        rows = tuple({name: from_json(output) for name, output in row.items()} for row in answer["rows"])
        outcome = Answer(rows, answer["batched"], answer["model"], int(answer["version"]), answer["request_id"])
    else:
        outcome = Refusal(**value["error"])
    return Recorded(value["model"], value["version"], value["inputs"], outcome)


def _rounded(value: Any) -> Any:
    match value:
        case bool() | str() | None:
            return value
        case int() | float():
            return f"{value:.6g}" if abs(value) < 1e6 else f"{value}"
        case list():
            return [_rounded(member) for member in value]
        case _:
            return {name: _rounded(member) for name, member in value.items()}
