"""Which rollout a source of evidence is asked about: sources know models by name, and look the rest up here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rollout.spec import RolloutSpec


@dataclass(frozen=True, slots=True)
class Subject:
    """The rollout under way of a model. `exposed_at`: when its first step began, epoch seconds; None before that."""

    model: str
    stable: int
    candidate: int
    spec: RolloutSpec
    exposed_at: float | None = None


FindSubject = Callable[[str], Subject | None]
"""The rollout of a model; None without one."""
