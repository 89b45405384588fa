"""What operators send and get, as their OpenAPI document describes it. Values the code reads are elsewhere."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.registry import Model, Registry, Version
from gateway.serving import InferenceServing


class ErrorDetail(BaseModel):
    """google.rpc.ErrorInfo."""

    type: str = Field(alias="@type")
    reason: str
    domain: str
    metadata: dict[str, str]


class ErrorStatus(BaseModel):
    """google.rpc.Status: the shape of every error."""

    code: int
    status: str
    message: str
    details: list[ErrorDetail]


class VersionView(BaseModel):
    """One version. `ready`: its last test inference completed. `size` in bytes, times in epoch seconds."""

    number: int
    state: str
    reason: str
    role: str | None = Field(description="stable, candidate or previous; null when it is out of the routes")
    ready: bool
    digest: str
    size: int
    created_at: float


class ModelView(BaseModel):
    """One model, where its traffic goes, and its API."""

    name: str
    stable: int | None
    candidate: int | None
    previous: int | None
    stable_since: float | None
    grpc: str | None = Field(description="the typed gRPC method; null until a version serves")
    http: str | None = Field(description="the typed JSON path; null until a version serves")
    versions: list[VersionView]


class ModelList(BaseModel):
    models: list[ModelView]


class Deployed(BaseModel):
    """One line of a deployment's answer."""

    stage: str
    model: str
    version: int
    message: str
    rollout: int | None


class StartRollout(BaseModel):
    """Which version to move callers to, and how. `spec` is the rollout spec as an object or as YAML text."""

    model_config = ConfigDict(extra="forbid")

    candidate: int = Field(ge=1)
    spec: dict[str, Any] | str | None = None
    by: str = Field(default="", max_length=200)


class Verb(BaseModel):
    """Who says so, and why; both are kept in the journal."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(default="", max_length=200)
    reason: str = Field(default="", max_length=2000)


def model_view(model: Model, *, registry: Registry, serving: InferenceServing) -> ModelView:
    contract = registry.locked_contract(model.name)
    return ModelView(
        name=model.name,
        stable=model.stable,
        candidate=model.candidate,
        previous=model.previous,
        stable_since=model.stable_since,
        grpc=contract.predict_grpc_path[1:] if contract and contract.typed else None,
        http=contract.predict_http_path if contract and contract.unary else None,
        versions=[_version_view(version, model, serving) for version in registry.versions(model.name)],
    )


def _version_view(version: Version, model: Model, serving: InferenceServing) -> VersionView:
    roles = {model.previous: "previous", model.candidate: "candidate", model.stable: "stable"}
    return VersionView(
        number=version.number,
        state=version.state,
        reason=version.reason,
        role=roles.get(version.number),
        ready=serving.is_ready(version.model, version.number),
        digest=version.digest,
        size=version.size,
        created_at=version.created_at,
    )
