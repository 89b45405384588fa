"""What must hold before users see a candidate, besides being ready; handed to the rollout controller.

Each check is a `rollout.performer.Check`, asked by the line's name.
"""

from __future__ import annotations

from gateway.contract.compare import Outcome, compare
from gateway.registry import Registry
from rollout.performer import Checked


class ContractCheck:
    """The candidate must not break the model's callers. The lock may have grown since the version was deployed."""

    def __init__(self, *, registry: Registry) -> None:
        self._registry = registry

    async def __call__(self, model: str, stable: int, candidate: int) -> Checked:
        line = self._registry.line(model).line
        locked = self._registry.locked_contract(line.model, line.major)
        if locked is None:
            return Checked()
        verdict = compare(locked, self._registry.version(line.model, candidate).signature)
        return Checked(refusal=str(verdict)) if verdict.outcome is Outcome.BREAKING else Checked()
