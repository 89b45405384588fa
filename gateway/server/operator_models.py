"""What operators send and get, as their OpenAPI document describes it. Values the code reads are elsewhere."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.registry import Model, Registry, RoutingLine, Version
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
    major: int = Field(description="the API major whose callers it answers")
    state: str
    reason: str
    role: str | None = Field(description="stable, candidate or previous; null when it is out of the routes")
    ready: bool
    digest: str
    size: int
    created_at: float
    served: ServedView | None = Field(description="the server's own name of a version that was adopted")


class ServedView(BaseModel):
    """A model by the inference server's own name."""

    name: str
    version: str


class LineView(BaseModel):
    """One API major of a model: where its traffic goes, and its API. Rollouts are asked for by `name`."""

    name: str
    major: int
    stable: int | None
    candidate: int | None
    previous: int | None
    stable_since: float | None
    grpc: str | None = Field(description="the typed gRPC method; null until a version serves, and without a typed API")
    http: str | None = Field(description="the typed JSON path; null until a version serves, and without a typed API")
    obstacles: list[str] = Field(description="why there is no typed API; the model is served by Open Inference then")


class ModelView(BaseModel):
    """One model. `stable`, `candidate`, `previous`, `grpc` and `http` are those of its first line."""

    name: str
    stable: int | None
    candidate: int | None
    previous: int | None
    stable_since: float | None
    grpc: str | None = Field(description="the typed gRPC method; null until a version serves, and without a typed API")
    http: str | None = Field(description="the typed JSON path; null until a version serves, and without a typed API")
    lines: list[LineView]
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


class Adopt(BaseModel):
    """Which model of the inference server becomes a version, and how its callers come to it.

    `name` and `version` are the server's; without `version` the highest one that is ready. `model` is the name that
    callers will use, by default made from the server's.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=300)
    version: str | None = Field(default=None, max_length=20)
    model: str | None = Field(default=None, max_length=100)
    rollout: Literal["start", "none"] = "start"
    spec: str = ""
    by: str = Field(default="", max_length=200)
    api_major: int | None = Field(default=None, ge=1)
    new_api_major: bool = False


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
    lines = [_line_view(line, registry) for line in model.lines]
    first = lines[0]
    return ModelView(
        name=model.name,
        stable=first.stable,
        candidate=first.candidate,
        previous=first.previous,
        stable_since=first.stable_since,
        grpc=first.grpc,
        http=first.http,
        lines=lines,
        versions=[_version_view(version, model, serving) for version in registry.versions(model.name)],
    )


def _line_view(line: RoutingLine, registry: Registry) -> LineView:
    contract = registry.locked_contract(line.line.model, line.line.major)
    return LineView(
        name=line.line.name,
        major=line.line.major,
        stable=line.stable,
        candidate=line.candidate,
        previous=line.previous,
        stable_since=line.stable_since,
        grpc=None if contract is None or not contract.typed else contract.predict_grpc_path[1:],
        http=None if contract is None or not contract.unary else contract.predict_http_path,
        obstacles=[] if contract is None else list(contract.obstacles),
    )


def _version_view(version: Version, model: Model, serving: InferenceServing) -> VersionView:
    line = next(each for each in model.lines if each.line == version.line)
    roles = {line.previous: "previous", line.candidate: "candidate", line.stable: "stable"}
    return VersionView(
        number=version.number,
        major=version.line.major,
        state=version.state,
        reason=version.reason,
        role=roles.get(version.number),
        ready=serving.is_ready(version.model, version.number),
        digest=version.digest,
        size=version.size,
        created_at=version.created_at,
        served=None if version.served is None else ServedView(name=version.served.name, version=version.served.version),
    )
