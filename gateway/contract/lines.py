"""Routing lines: one model in one major version of its API, the unit of routes, weights and rollouts.

A breaking version that is published under a new API major answers beside the old one, so each major has a stable
version, a candidate and rollouts of its own. People and programs name a line `digits` (major 1) or `digits@2`; Envoy
knows it by its scope key. Version numbers belong to the model, whatever the major.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.contract.names import model_key

_NAME = re.compile(r"(?P<model>[^@]*)(@(?P<major>[1-9][0-9]{0,8}))?")


class BadLineName(ValueError):
    """Not a model's name with or without `@MAJOR`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} names no routing line: expected MODEL, or MODEL@N for API major N")


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One model, one API major."""

    model: str
    major: int = 1

    @property
    def name(self) -> str:
        """`digits` for major 1, `digits@2` for another."""
        return self.model if self.major == 1 else f"{self.model}@{self.major}"

    @property
    def key(self) -> str:
        """The scope key: `digits`, `digits.v2`. No model's own key has a dot."""
        key = model_key(self.model)
        return key if self.major == 1 else f"{key}.v{self.major}"

    @classmethod
    def parse(cls, name: str) -> Line:
        """`digits` and `digits@1` are the same line. Whether there is such a model is not asked. Raises BadLineName."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise BadLineName(name)
        return cls(match["model"], int(match["major"] or 1))
