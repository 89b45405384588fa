"""All that the judge remembers, as one JSON document: journalled with every verdict, enough to go on after a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FORMAT = 3


@dataclass(frozen=True, slots=True)
class JudgeState:
    """Opaque to all but the judge. Numbers survive JSON exactly: Python writes a float's shortest exact form."""

    document: str

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> JudgeState:
        return cls(json.dumps({"format": _FORMAT, **parts}, allow_nan=False, separators=(",", ":")))

    def parts(self) -> dict[str, Any]:
        """Raises ValueError when the document is not one of this format."""
        value = json.loads(self.document)
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError(f"judge state: expected format {_FORMAT}, received {self.document[:60]!r}")
        return value

    def to_json(self) -> dict[str, Any]:
        return self.parts()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JudgeState:
        state = cls(json.dumps(dict(value), allow_nan=False, separators=(",", ":")))
        state.parts()
        return state
