"""Contracts -> OpenAPI 3.1 documents: one per model, and one of all models of a gateway.

Served to callers as /v1/models/<model>/openapi.json and /openapi.json. The paths are those Envoy answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from gateway.contract.examples import example_inputs, example_request, example_response, is_readable
from gateway.contract.json_schema import Schema, Side, datatype_schemas, row_schema
from gateway.contract.model import Contract
from gateway.contract.openapi_common import (
    ERRORS_OF_PREDICTIONS,
    FEEDBACK,
    FEEDBACK_OPERATION,
    FEEDBACK_RECEIPT,
    HEADERS,
    PARAMETERS,
    STATUS,
    Document,
    error_refs,
    error_responses,
    header_refs,
)
from gateway.contract.words import on_one_line


def model_document(contract: Contract) -> Document:
    """The OpenAPI document of one model."""
    return _document(
        title=f"{contract.model} (Penstock)",
        version=str(contract.major),
        description=_about(contract),
        contracts=[contract],
    )


def merged_document(contracts: Iterable[Contract]) -> Document:
    """The OpenAPI document of all models, in the order of their names and majors."""
    return _document(
        title="Penstock",
        version="1",
        description="Predictions of every model this gateway serves.",
        contracts=sorted(contracts, key=lambda contract: (contract.model, contract.major)),
    )


def pinned_http_path(contract: Contract) -> str:
    """The path that pins a version, with `{version}` in its place."""
    return f"/v{contract.major}/models/{contract.model}/versions/{{version}}:predict"


def _about(contract: Contract) -> str:
    """What a model's document says first; for a model without typed JSON, why."""
    about = f'Predictions of the model "{contract.model}".'
    if not contract.typed:
        why = "; ".join(on_one_line(obstacle) for obstacle in contract.obstacles)
        return f"{about} It is served through Open Inference Protocol alone, because {why}."
    if contract.decoupled:
        stream = f"`{contract.full_service}/{contract.method}`"
        return f"{about} It streams its answers, which JSON does not carry: call {stream} over gRPC."
    return f"{about} Typed gRPC: `{contract.full_service}/{contract.method}`."


def _document(*, title: str, version: str, description: str, contracts: Sequence[Contract]) -> Document:
    unary = [contract for contract in contracts if contract.unary]
    fields = chain.from_iterable((*c.inputs, *c.outputs) for c in unary)
    schemas: dict[str, Schema] = {}
    paths: dict[str, Any] = {}
    for contract in unary:
        schemas.update(_model_schemas(contract))
        paths.update(_model_paths(contract))
    paths["/v1/feedback"] = {"post": FEEDBACK_OPERATION}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "tags": [*_tags(contracts), {"name": "feedback"}],
        "paths": paths,
        "components": {
            "schemas": {
                **schemas,
                **datatype_schemas([field.datatype for field in fields]),
                "Status": STATUS,
                "Feedback": FEEDBACK,
                "FeedbackReceipt": FEEDBACK_RECEIPT,
            },
            # Each is there because something refers to it; without a prediction, feedback's errors are all.
            "headers": HEADERS if unary else {name: HEADERS[name] for name in ("X-Request-Id",)},
            **({"parameters": PARAMETERS} if unary else {}),
            "responses": error_responses(ERRORS_OF_PREDICTIONS if unary else ()),
        },
    }


def _tags(contracts: Sequence[Contract]) -> list[dict[str, str]]:
    """One per model; what has no operation here says why."""
    tags = {c.model: {"name": c.model} if c.unary else {"name": c.model, "description": _about(c)} for c in contracts}
    return list(tags.values())


def _schema_name(contract: Contract, message: str) -> str:
    return f"{contract.key}.v{contract.major}.{message}"


def _schema_ref(contract: Contract, message: str) -> Schema:
    return {"$ref": f"#/components/schemas/{_schema_name(contract, message)}"}


def _model_schemas(contract: Contract) -> dict[str, Schema]:
    takes, gives = "What the model takes.", "What the model gives."
    if not contract.batching:
        return {
            _schema_name(contract, "PredictRequest"): row_schema(contract.inputs, Side.REQUEST, takes),
            _schema_name(contract, "PredictResponse"): row_schema(contract.outputs, Side.RESPONSE, gives),
        }
    return {
        _schema_name(contract, "Instance"): row_schema(contract.inputs, Side.REQUEST, f"One row. {takes}"),
        _schema_name(contract, "Prediction"): row_schema(contract.outputs, Side.RESPONSE, f"{gives} For one row."),
        _schema_name(contract, "PredictRequest"): {
            "type": "object",
            "properties": {
                "instances": {
                    "type": "array",
                    "description": "The rows to predict.",
                    "items": _schema_ref(contract, "Instance"),
                    "minItems": 1,
                    "maxItems": contract.max_rows,
                }
            },
            "required": ["instances"],
            "additionalProperties": False,
        },
        _schema_name(contract, "PredictResponse"): {
            "type": "object",
            "properties": {
                "predictions": {
                    "type": "array",
                    "description": "One prediction per instance, in the same order.",
                    "items": _schema_ref(contract, "Prediction"),
                }
            },
            "required": ["predictions"],
        },
    }


def _model_paths(contract: Contract) -> dict[str, Any]:
    name = f"{contract.key}_v{contract.major}"
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "The version that must answer.",
        "schema": {"type": "integer", "minimum": 1},
    }
    return {
        contract.predict_http_path: {
            "post": _operation(
                contract,
                operation_id=f"predict_{name}",
                summary=f"Predict with {contract.model}",
                parameters=["UserId", "RequestId", "Version"],
            )
        },
        pinned_http_path(contract): {
            "parameters": [version],
            "post": _operation(
                contract,
                operation_id=f"predict_{name}_version",
                summary=f"Predict with one version of {contract.model}",
                parameters=["UserId", "RequestId"],
            ),
        },
    }


def _operation(contract: Contract, *, operation_id: str, summary: str, parameters: Sequence[str]) -> Document:
    request: Document = {"schema": _schema_ref(contract, "PredictRequest")}
    answer: Document = {"schema": _schema_ref(contract, "PredictResponse")}
    if is_readable(example_inputs(contract), contract.dynamic_size):
        request["example"] = example_request(contract)
    if is_readable(contract.outputs, contract.dynamic_size):
        answer["example"] = example_response(contract)
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [contract.model],
        "parameters": [{"$ref": f"#/components/parameters/{p}"} for p in parameters],
        "requestBody": {"required": True, "content": {"application/json": request}},
        "responses": {
            "200": {
                "description": "The predictions.",
                "headers": header_refs("X-Request-Id", "X-Penstock-Model", "X-Penstock-Version"),
                "content": {"application/json": answer},
            },
            **error_refs(*ERRORS_OF_PREDICTIONS),
        },
    }
