"""What callers may see of the control plane, through Envoy on their own port: docs, API descriptions, feedback.

Predictions never come here; Envoy answers those from the inference server.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from adapters.server import Listed
from gateway.codegen.formats import asked_format
from gateway.codegen.project import project, zipped
from gateway.contract.docs_page import docs_path, index_page, model_page, openapi_path, proto_path
from gateway.contract.lines import Line
from gateway.contract.model import Contract
from gateway.contract.open_inference import infer_path
from gateway.contract.openapi import merged_document, model_document
from gateway.contract.proto import proto_text
from gateway.contract.snippets import Gateway
from gateway.health import GatewayHealth
from gateway.registry import Registry, RoutingLine, VersionState
from gateway.server.app import add_error_handlers
from gateway.server.body import read_body
from gateway.server.errors import Code, Problem
from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_request import parse_feedback

MAX_FEEDBACK_BYTES = 1024 * 1024
MAX_INDEX_BYTES = 4096


def public_app(*, registry: Registry, health: GatewayHealth, desk: FeedbackDesk, authority: str) -> FastAPI:
    """The application on the internal port behind Envoy.

    `authority` is `host:port` of the callers' port, for the examples when a request does not say what it used.
    """
    # The documents of the models are the OpenAPI of this port; FastAPI's own would describe none of them.
    app = FastAPI(title="Penstock", openapi_url=None, docs_url=None, redoc_url=None)
    add_error_handlers(app)

    @app.get("/")
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(index_page(registry.contracts()))

    @app.get("/docs/{name}")
    @app.get("/v{major:int}/models/{name}/docs")
    async def model_docs(name: str, request: Request, major: int = 1) -> HTMLResponse:
        found, contract = _published(registry, name, major)
        gateway = Gateway(authority=request.headers.get("host", authority))
        page = model_page(contract, gateway=gateway, stable=found.stable, versions=_pinnable(registry, found))
        return HTMLResponse(page)

    @app.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(merged_document(registry.contracts()))

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"models": [_listed(registry, c) for c in registry.contracts()]})

    @app.get("/v{major:int}/models/{name}.proto")
    async def proto(major: int, name: str, annotations: bool = True) -> PlainTextResponse:
        """`?annotations=false` leaves out google.api.http, for builds without googleapis' files."""
        return PlainTextResponse(proto_text(_published(registry, name, major)[1], annotations=annotations))

    @app.get("/v{major:int}/models/{name}/openapi.json")
    async def model_openapi(major: int, name: str) -> JSONResponse:
        return JSONResponse(model_document(_published(registry, name, major)[1]))

    @app.get("/v{major:int}/models/{name}/clients/{format}.zip")
    async def client_project(major: int, name: str, format: str, request: Request) -> Response:
        """A document or a client project for a language, as `penstock api NAME --format` unpacks it."""
        contract = _published(registry, name, major)[1]
        gateway = Gateway(authority=request.headers.get("host", authority))
        return Response(zipped(project(asked_format(format), contract, gateway)), media_type="application/zip")

    @app.get("/v{major:int}/models/{name}")
    async def model(major: int, name: str) -> JSONResponse:
        return JSONResponse(_listed(registry, _published(registry, name, major)[1]))

    @app.get("/nearest")
    async def nearest(name: str) -> JSONResponse:
        """For Envoy, which knows no names it does not route: what a caller may have meant. No route leads here."""
        unknown = registry.unknown(name)
        headers = {"x-penstock-nearest": ", ".join(unknown.nearest)}
        return JSONResponse({"nearest": unknown.nearest, "message": str(unknown)}, headers=headers)

    @app.post("/v2/repository/index")
    async def repository_index(request: Request) -> JSONResponse:
        """Open Inference Protocol's list of models, by the public names; `{"ready": true}` asks for the ready ones."""
        ready_only = _ready_only(await read_body(request, MAX_INDEX_BYTES))
        return JSONResponse([_index_entry(each) for each in health.versions() if each.ready or not ready_only])

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> JSONResponse:
        receipt = await desk.take(parse_feedback(await read_body(request, MAX_FEEDBACK_BYTES)))
        return JSONResponse(
            {
                "request_id": receipt.request_id,
                "state": receipt.state,
                "duplicate": receipt.duplicate,
                "rows": receipt.rows,
                "model": receipt.model,
                "version": receipt.version,
            }
        )

    return app


def _ready_only(body: bytes) -> bool:
    """What the body of an index request asks for; clients send an empty one, or an object. Raises Problem."""
    try:
        asked = json.loads(body or b"{}")
    except ValueError as error:
        raise Problem(Code.INVALID_ARGUMENT, "MALFORMED_JSON", f"the body is not JSON: {error}") from error
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        where = {"field": "ready", "expected": "true or false", "received": repr(asked)[:60]}
        raise Problem(Code.INVALID_ARGUMENT, "WRONG_TYPE", 'expected nothing, or {"ready": true}', where)
    return ready


def _index_entry(entry: Listed) -> dict[str, str]:
    named = {"name": entry.served.name, "version": entry.served.version, "state": entry.state}
    return named | ({"reason": entry.reason} if entry.reason else {})


def _published(registry: Registry, name: str, major: int = 1) -> tuple[RoutingLine, Contract]:
    """Raises UnknownModel, also for a model whose first version never went live, and UnknownLine."""
    contract = registry.locked_contract(name, major)
    if contract is None and not registry.locks(name):
        raise registry.unknown(name)
    line = registry.line(Line(name, major).name)
    if contract is None:
        raise registry.unknown_line(line.line)
    return line, contract


def _pinnable(registry: Registry, line: RoutingLine) -> list[int]:
    versions = registry.versions(line.line.model)
    return [v.number for v in versions if v.number in line.routed and v.state is VersionState.READY]


def _listed(registry: Registry, contract: Contract) -> dict[str, Any]:
    line = registry.line(Line(contract.model, contract.major).name)
    return {
        "name": contract.model,
        "major": contract.major,
        "stable": line.stable,
        "candidate": line.candidate,
        "versions": _pinnable(registry, line),
        **({"predict": contract.predict_http_path} if contract.unary else {}),
        **({"grpc": contract.predict_grpc_path[1:], "proto": proto_path(contract)} if contract.typed else {}),
        "infer": infer_path(contract),
        **({"obstacles": list(contract.obstacles)} if contract.obstacles else {}),
        "openapi": openapi_path(contract),
        "docs": docs_path(contract.model, contract.major),
    }
