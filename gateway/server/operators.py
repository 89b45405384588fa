"""The operators' API on its own port: models, rollouts, the compiled configuration, health and metrics.

The CLI is one of its clients. It has no authentication of its own yet, so it listens on the loopback address.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.contract.lines import Line
from gateway.contract.lock_file import lock_text, of_model, parse_lock
from gateway.deploy import MAX_VERSION, AdoptRequest, ApiChoice, Deployer, Deployment, DeployRequest
from gateway.envoy.yaml_config import EnvoyForm
from gateway.golden import GoldenStore
from gateway.health import GatewayHealth
from gateway.registry import Registry
from gateway.server.app import add_error_handlers
from gateway.server.errors import Code, Problem, problem_of
from gateway.server.metrics import Metrics
from gateway.server.operator_golden import golden_router
from gateway.server.operator_models import (
    Adopt,
    Deployed,
    ErrorStatus,
    ModelList,
    ModelView,
    StartRollout,
    Verb,
    model_view,
)
from gateway.serving import InferenceServing
from rollout.controller import Controller
from rollout.explain import Explanation
from rollout.report import RolloutStatus
from rollout.spec import RolloutSpec
from rollout.spec_file import parse_spec, spec_from_mapping

NDJSON = "application/x-ndjson"
"""One JSON value per line, each written as it happens."""


class RolloutVerb(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    UNDO = "undo"
    RETRY = "retry"


EnvoyYaml = Callable[[EnvoyForm], str]


def operators_app(
    *,
    registry: Registry,
    deployer: Deployer,
    serving: InferenceServing,
    controller: Controller,
    health: GatewayHealth,
    metrics: Metrics,
    golden: GoldenStore,
    envoy_yaml: EnvoyYaml,
    version: str,
) -> FastAPI:
    """The application on the operators' port. `version` is Penstock's own."""
    app = FastAPI(
        title="Penstock operators' API",
        version=version,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ErrorStatus, "description": "What went wrong, and what to try."}},
    )
    add_error_handlers(app)
    app.include_router(_models(registry, deployer, serving, controller, metrics), prefix="/api/v1")
    app.include_router(_rollouts(registry, controller), prefix="/api/v1")
    app.include_router(golden_router(golden), prefix="/api/v1")

    @app.get("/api/v1/envoy", response_class=Response, responses=_text("application/yaml"), tags=["envoy"])
    async def envoy(
        form: Annotated[
            EnvoyForm, Query(description="all in one file, the same without a control plane, or the bootstrap")
        ] = EnvoyForm.COMPILED,
    ) -> Response:
        """The configuration of Envoy as YAML."""
        return Response(envoy_yaml(form), media_type="application/yaml")

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Whether the control plane lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz() -> JSONResponse:
        """Whether a prediction could be served now, and what is missing if not (503)."""
        report = await health.report()
        return JSONResponse(asdict(report), status_code=200 if report.ready else 503)

    @app.get("/metrics", response_class=Response, responses=_text("text/plain"), tags=["health"])
    async def prometheus() -> Response:
        """Metrics of the control plane for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def _text(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "The text.", "content": {media_type: {"schema": {"type": "string"}}}}}


def _models(
    registry: Registry, deployer: Deployer, serving: InferenceServing, controller: Controller, metrics: Metrics
) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/models")
    async def list_models() -> ModelList:
        """Every model with its versions."""
        return ModelList(models=[model_view(m, registry=registry, serving=serving) for m in registry.models()])

    @router.get("/models/{model}")
    async def show_model(model: str) -> ModelView:
        """One model with its versions."""
        return model_view(registry.model(model), registry=registry, serving=serving)

    @router.post(
        "/models/{model}/versions",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        responses={
            200: {
                "description": "One line per stage; the last one tells how it ended.",
                "content": {NDJSON: {"schema": Deployed.model_json_schema()}},
            }
        },
    )
    async def deploy(
        model: str,
        request: Request,
        version: Annotated[int | None, Query(description="the next free number by default")] = None,
        rollout: Annotated[
            Literal["start", "none"], Query(description="whether a model that has a stable version starts a rollout")
        ] = "start",
        spec: Annotated[str, Query(description="the rollout spec as YAML or JSON")] = "",
        source: Annotated[str, Query(max_length=300, description="the file's name, for messages")] = "the file",
        by: Annotated[str, Query(max_length=200)] = "",
        api_major: Annotated[int | None, Query(ge=1, description="the API the version is meant for")] = None,
        new_api_major: Annotated[
            bool, Query(description="publish a version that breaks every API as a new major beside them")
        ] = False,
        lock: Annotated[str, Query(description="a lock file: names and numbers that were published elsewhere")] = "",
    ) -> StreamingResponse:
        """Make a new version of the model file in the body.

        Answers when the file was checked and registered, with one line of JSON per stage from there on. What is
        wrong with the request or the file is an error response, and nothing has changed then.
        """
        chosen = parse_spec(spec) if spec else None

        async def start(name: str, candidate: int) -> int:
            return (await _start(registry, controller, name, candidate, chosen, by)).rollout_id

        try:
            locks = of_model(parse_lock(lock), model) if lock else ()
            wanted = DeployRequest(
                model=model,
                number=version,
                start_rollout=start if rollout == "start" else None,
                source=source,
                api=ApiChoice(major=api_major, new_major=new_api_major, locks=locks),
            )
            deployment = await deployer.accept(wanted, request.stream())
        except Exception:
            metrics.refused()
            raise
        return StreamingResponse(_lines(_events(deployment)), media_type=NDJSON)

    @router.post(
        "/adoptions",
        responses={
            200: {
                "description": "One line per stage; the last one tells how it ended.",
                "content": {NDJSON: {"schema": Deployed.model_json_schema()}},
            }
        },
    )
    async def adopt(body: Adopt) -> StreamingResponse:
        """Make a version of a model that the inference server has already.

        Answers as a deployment does, with one line of JSON per stage.
        """
        chosen = parse_spec(body.spec) if body.spec else None

        async def start(name: str, candidate: int) -> int:
            return (await _start(registry, controller, name, candidate, chosen, body.by)).rollout_id

        wanted = AdoptRequest(
            name=body.name,
            served_version=body.version,
            model=body.model,
            start_rollout=start if body.rollout == "start" else None,
            api=ApiChoice(major=body.api_major, new_major=body.new_api_major),
        )
        try:
            deployment = await deployer.adopt(wanted)
        except Exception:
            metrics.refused()
            raise
        return StreamingResponse(_lines(_events(deployment)), media_type=NDJSON)

    @router.get("/lock", response_class=Response, responses=_text("application/yaml"))
    async def lock_file(
        model: Annotated[list[str] | None, Query(description="models to lock; all without it")] = None,
    ) -> Response:
        """The locked contracts as a lock file."""
        for name in model or ():
            if not registry.locks(name):
                raise registry.unknown(name)
        wanted = [contract for contract in registry.contracts() if not model or contract.model in model]
        return Response(lock_text(wanted), media_type="application/yaml")

    return router


def _rollouts(registry: Registry, controller: Controller) -> APIRouter:
    router = APIRouter(tags=["rollouts"])
    verbs = {
        RolloutVerb.PAUSE: controller.pause,
        RolloutVerb.RESUME: controller.resume,
        RolloutVerb.PROMOTE: controller.promote,
        RolloutVerb.ABORT: controller.abort,
        RolloutVerb.UNDO: controller.undo,
        RolloutVerb.RETRY: controller.retry,
    }

    @router.post("/models/{model}/rollouts", status_code=201, response_model=RolloutStatus)
    async def start(model: str, body: StartRollout) -> JSONResponse:
        """Start moving callers to a version."""
        match body.spec:
            case None:
                spec = None
            case str(text):
                spec = parse_spec(text)
            case mapping:
                spec = spec_from_mapping(mapping)
        status = await _start(registry, controller, model, body.candidate, spec, body.by)
        return JSONResponse(status.to_json(), status_code=201)

    @router.get("/models/{model}/rollouts", response_model=list[RolloutStatus])
    async def history(model: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JSONResponse:
        """A model's rollouts, newest first."""
        line = registry.line(model).line.name
        return JSONResponse([status.to_json() for status in controller.history(line, limit)])

    @router.get("/models/{model}/rollout", response_model=RolloutStatus)
    async def current(model: str) -> JSONResponse:
        """The rollout under way, or else the last one."""
        return JSONResponse(controller.status(registry.line(model).line.name).to_json())

    @router.post("/models/{model}/rollout/{verb}", response_model=RolloutStatus)
    async def say(model: str, verb: RolloutVerb, body: Annotated[Verb | None, Body()] = None) -> JSONResponse:
        """Pause, resume, promote, abort, undo or retry."""
        line = registry.line(model).line.name
        said = body or Verb()
        status = await verbs[verb](line, by=said.by, reason=said.reason)
        return JSONResponse(status.to_json())

    @router.get("/rollouts", response_model=list[RolloutStatus])
    async def active() -> JSONResponse:
        """Everything that is not settled, oldest first."""
        return JSONResponse([status.to_json() for status in controller.active()])

    @router.get("/rollouts/{rollout}", response_model=RolloutStatus)
    async def show(rollout: Annotated[int, Path(ge=1, le=MAX_VERSION)]) -> JSONResponse:
        """One rollout."""
        return JSONResponse(controller.rollout(rollout).to_json())

    @router.get("/rollouts/{rollout}/explanation", response_model=Explanation)
    async def explain(rollout: Annotated[int, Path(ge=1, le=MAX_VERSION)]) -> JSONResponse:
        """What happened in a rollout and why; `lines` tells it as text."""
        explanation = controller.explain(rollout)
        return JSONResponse({**explanation.to_json(), "lines": explanation.lines()})

    @router.get("/rollouts/{rollout}/journal", responses={200: {"content": {NDJSON: {}}}})
    async def journal(rollout: Annotated[int, Path(ge=1, le=MAX_VERSION)]) -> StreamingResponse:
        """The rollout's whole journal, one record per line: to replay, draw or rehearse it anywhere."""
        return StreamingResponse(controller.journal(rollout), media_type=NDJSON)

    @router.get("/rollouts/{rollout}/watch", responses={200: {"content": {NDJSON: {}}}})
    async def watch(rollout: Annotated[int, Path(ge=1, le=MAX_VERSION)]) -> StreamingResponse:
        """The rollout's status now and after every turn, one per line, until it is decided."""
        controller.rollout(rollout)
        statuses = (status.to_json() async for status in controller.watch(rollout))
        return StreamingResponse(_lines(statuses), media_type=NDJSON)

    return router


async def _start(
    registry: Registry, controller: Controller, model: str, candidate: int, spec: RolloutSpec | None, by: str
) -> RolloutStatus:
    """Start on the candidate's own routing line; `model` may name it (`digits@2`) or the model alone."""
    asked = Line.parse(model)
    line = registry.version(asked.model, candidate).line
    if "@" in model and asked != line:
        raise Problem(
            Code.FAILED_PRECONDITION,
            "OTHER_API_MAJOR",
            f"{asked.model} version {candidate} has API major {line.major}, not {asked.major}: its line is {line.name}",
        )
    stable = registry.line(line.name).stable
    if stable is None:
        raise Problem(
            Code.FAILED_PRECONDITION,
            "NO_STABLE_VERSION",
            f"{line.name} has no stable version to move callers from: deploy one that serves",
        )
    return await controller.start(line.name, candidate, stable, spec, by=by)


async def _events(deployment: Deployment) -> AsyncIterator[dict[str, Any]]:
    async for event in deployment.events():
        yield asdict(event)


async def _lines(values: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[str]:
    """One line of JSON each; the status code is sent by then, so trouble becomes a last line with `error`."""
    try:
        async for value in values:
            yield json.dumps(value) + "\n"
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        yield json.dumps({"error": problem.body()}) + "\n"
