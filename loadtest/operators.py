"""The operators' API as the demo and the canary scenario use it: is the stack ready, where does a rollout stand.

The canary scenario also starts its rollout here; the demo deploys by the `penstock` command, as a user would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx


class OperatorsError(Exception):
    """The operators' API did not answer as expected; the message carries what it said."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One version of a rollout since its first step. Latency in microseconds, None without data."""

    version: int
    requests: int
    errors: int
    labelled: int
    wrong: int
    p50_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far one metric is, 0 to 1, towards letting the candidate advance and towards taking it back."""

    name: str
    toward_advance: float
    toward_rollback: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a rollout stands. Weights are shares (0..1) of traffic; times are epoch seconds."""

    id: int
    stable: int
    candidate: int
    state: str
    final: bool
    step: int
    step_weights: tuple[float, ...]
    weight: float
    created_at: float
    since: float
    in_state_s: float
    reason: str
    waiting_for: str
    arms: tuple[Arm, ...]
    metrics: tuple[Evidence, ...]

    @property
    def state_words(self) -> str:
        if self.state == "step":
            return f"step {self.step} of {len(self.step_weights)}, {self.weight:.0%} of traffic"
        if self.state == "baking":
            return f"baking, {self.weight:.0%} of traffic"
        return self.state.replace("_", " ")

    @property
    def seconds(self) -> float:
        """From its start to the state it is in: for a final rollout, to its verdict."""
        return self.since - self.created_at

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rollout:
        return cls(
            id=value["rollout_id"],
            stable=value["stable"],
            candidate=value["candidate"],
            state=value["state"],
            final=value["final"],
            step=value["step"],
            step_weights=tuple(weight / 10_000 for weight in value["step_weights_bp"]),
            weight=value["weight_bp"] / 10_000,
            created_at=value["created_at"],
            since=value["since"],
            in_state_s=value["in_state_s"],
            reason=value["reason"],
            waiting_for=value["waiting_for"],
            arms=tuple(
                Arm(
                    version=arm["version"],
                    requests=arm["requests"],
                    errors=arm["errors"],
                    labelled=arm["labelled"],
                    wrong=arm["wrong"],
                    p50_us=arm["p50_us"],
                    p99_us=arm["p99_us"],
                )
                for arm in value["versions"]
            ),
            metrics=tuple(
                Evidence(metric["metric"], metric["toward_advance"], metric["toward_rollback"])
                for metric in value["metrics"]
            ),
        )


class Operators:
    """A client of the operators' port; a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def ready(self) -> bool:
        """Whether a prediction could be served; False too while nothing listens."""
        try:
            return self._client.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def rollout(self, model: str, candidate: int) -> Rollout | None:
        """The rollout of a candidate version; None while there is none. Raises OperatorsError."""
        path = f"/api/v1/models/{model}/rollouts"
        try:
            response = self._client.get(path)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise OperatorsError(f"{self.url}{path}: {error}") from error
        rollouts = map(Rollout.from_json, response.json())
        return next((rollout for rollout in rollouts if rollout.candidate == candidate), None)

    def deploy(self, model: str, artefact: Path, spec: str) -> int:
        """Deploy a model file as the next version, which starts its rollout; the version. Raises OperatorsError.

        `spec` is the rollout spec (YAML), empty for Penstock's defaults.
        """
        query = {"source": artefact.name, "rollout": "start", "by": "load test"} | ({"spec": spec} if spec else {})
        content = artefact.read_bytes()
        lines = self._post(f"/api/v1/models/{model}/versions", params=query, content=content).splitlines()
        last: dict[str, Any] = json.loads(lines[-1])
        if last.get("rollout") is None:
            raise OperatorsError(f"{artefact.name} started no rollout: {last.get('message', lines[-1])}")
        return int(last["version"])

    def start(self, model: str, candidate: int, spec: str) -> None:
        """Start the rollout of a version that is loaded. Raises OperatorsError."""
        body = {"candidate": candidate, "by": "load test"} | ({"spec": spec} if spec else {})
        self._post(f"/api/v1/models/{model}/rollouts", json=body)

    def _post(self, path: str, **content: Any) -> str:
        try:
            # Loading a large model takes as long as it takes; the server says when it failed.
            response = self._client.post(path, timeout=httpx.Timeout(10.0, read=None), **content)
        except httpx.HTTPError as error:
            raise OperatorsError(f"{self.url}{path}: {error}") from error
        if not response.is_success:
            raise OperatorsError(f"{self.url}{path}: {response.text}")
        return response.text
