"""What callers may see of the control plane, through Envoy on their own port: docs, API descriptions, feedback.

Predictions never come here; Envoy answers those from the inference server.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse

from gateway.contract.docs_page import docs_path, index_page, model_page, openapi_path, proto_path
from gateway.contract.model import Contract
from gateway.contract.open_inference import infer_path
from gateway.contract.openapi import merged_document, model_document
from gateway.contract.proto import proto_text
from gateway.contract.snippets import Gateway
from gateway.registry import Model, Registry, VersionState
from gateway.server.app import add_error_handlers
from gateway.server.body import read_body
from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_request import parse_feedback

MAX_FEEDBACK_BYTES = 1024 * 1024


def public_app(*, registry: Registry, desk: FeedbackDesk, authority: str) -> FastAPI:
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

    @app.get("/docs/{model}")
    async def model_docs(model: str, request: Request) -> HTMLResponse:
        found, contract = _published(registry, model)
        gateway = Gateway(authority=request.headers.get("host", authority))
        page = model_page(contract, gateway=gateway, stable=found.stable, versions=_pinnable(registry, found))
        return HTMLResponse(page)

    @app.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(merged_document(registry.contracts()))

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"models": [_listed(registry, c) for c in registry.contracts()]})

    @app.get("/v1/models/{name}.proto")
    async def proto(name: str, annotations: bool = True) -> PlainTextResponse:
        """`?annotations=false` leaves out google.api.http, for builds without googleapis' files."""
        return PlainTextResponse(proto_text(_published(registry, name)[1], annotations=annotations))

    @app.get("/v1/models/{name}/openapi.json")
    async def model_openapi(name: str) -> JSONResponse:
        return JSONResponse(model_document(_published(registry, name)[1]))

    @app.get("/v1/models/{name}")
    async def model(name: str) -> JSONResponse:
        return JSONResponse(_listed(registry, _published(registry, name)[1]))

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


def _published(registry: Registry, name: str) -> tuple[Model, Contract]:
    """Raises UnknownModel, also for a model whose first version never went live."""
    model = registry.model(name)
    contract = registry.locked_contract(name)
    if contract is None:
        raise registry.unknown(name)
    return model, contract


def _pinnable(registry: Registry, model: Model) -> list[int]:
    routed = {model.stable, model.candidate, model.previous}
    return [v.number for v in registry.versions(model.name) if v.number in routed and v.state is VersionState.READY]


def _listed(registry: Registry, contract: Contract) -> dict[str, Any]:
    model = registry.model(contract.model)
    return {
        "name": model.name,
        "stable": model.stable,
        "candidate": model.candidate,
        "versions": _pinnable(registry, model),
        **({"predict": contract.predict_http_path} if contract.unary else {}),
        **({"grpc": contract.predict_grpc_path[1:], "proto": proto_path(contract)} if contract.typed else {}),
        "infer": infer_path(contract),
        **({"obstacles": list(contract.obstacles)} if contract.obstacles else {}),
        "openapi": openapi_path(contract),
        "docs": docs_path(model.name, contract.major),
    }
