"""Contracts -> OpenAPI 3.1 documents: one per model, and one of all models of a gateway.

Served to callers as /v1/models/<model>/openapi.json and /openapi.json. The paths are those Envoy answers; the error
schema is the google.rpc.Status that every hop of Penstock gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeAlias

from gateway.contract.examples import example_request, example_response, is_readable
from gateway.contract.json_schema import Schema, Side, datatype_schemas, row_schema
from gateway.contract.model import Contract

Document: TypeAlias = dict[str, Any]

_ERRORS: dict[str, tuple[str, int, str, str]] = {
    "400": ("The request is wrong; `details` names the field.", 3, "INVALID_ARGUMENT", "WRONG_COUNT"),
    "404": ("No such model, or no such version of it.", 5, "NOT_FOUND", "UNKNOWN_VERSION"),
    "413": ("The body is larger than this model takes.", 8, "RESOURCE_EXHAUSTED", "TOO_LARGE"),
    "500": ("The model failed, or answered what it must not.", 13, "INTERNAL", "BAD_ANSWER"),
    "503": ("No server answers for this version now; try again.", 14, "UNAVAILABLE", "UNAVAILABLE"),
    "504": ("The prediction took longer than its deadline.", 4, "DEADLINE_EXCEEDED", "DEADLINE"),
}


def model_document(contract: Contract) -> Document:
    """The OpenAPI document of one model."""
    return _document(
        title=f"{contract.model} (Penstock)",
        version=str(contract.major),
        description=f'Predictions of the model "{contract.model}". Typed gRPC: `{contract.full_service}/Predict`.',
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


def _document(*, title: str, version: str, description: str, contracts: Sequence[Contract]) -> Document:
    fields = chain.from_iterable((*c.inputs, *c.outputs) for c in contracts)
    schemas: dict[str, Schema] = {}
    paths: dict[str, Any] = {}
    for contract in contracts:
        schemas.update(_model_schemas(contract))
        paths.update(_model_paths(contract))
    paths["/v1/feedback"] = {"post": _FEEDBACK}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "tags": [{"name": c.model} for c in {c.model: c for c in contracts}.values()] + [{"name": "feedback"}],
        "paths": paths,
        "components": {
            "schemas": {
                **schemas,
                **datatype_schemas([field.datatype for field in fields]),
                "Status": _STATUS,
                "Feedback": _FEEDBACK_BODY,
            },
            "headers": _HEADERS,
            "parameters": _PARAMETERS,
            "responses": {f"Error{code}": _error_response(*parts) for code, parts in _ERRORS.items()},
        },
    }


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
    if is_readable(contract.inputs):
        request["example"] = example_request(contract)
    if is_readable(contract.outputs):
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
                "headers": _header_refs("X-Request-Id", "X-Penstock-Model", "X-Penstock-Version"),
                "content": {"application/json": answer},
            },
            **{code: {"$ref": f"#/components/responses/Error{code}"} for code in _ERRORS},
        },
    }


def _header_refs(*names: str) -> Document:
    return {name.lower(): {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_response(description: str, code: int, status: str, reason: str) -> Document:
    example = {
        "code": code,
        "status": status,
        "message": description.split(";")[0].rstrip(".").replace("`", ""),
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "penstock",
                "metadata": {"hop": "gateway"},
            }
        ],
    }
    return {
        "description": description,
        "headers": _header_refs("X-Request-Id"),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}, "example": example}},
    }


_STATUS: Schema = {
    "type": "object",
    "description": "google.rpc.Status: every error of every hop has this form.",
    "properties": {
        "code": {
            "type": "integer",
            "description": "google.rpc.Code: 3 is INVALID_ARGUMENT.",
            "minimum": 1,
            "maximum": 16,
        },
        "status": {"type": "string", "description": "The code's name."},
        "message": {"type": "string", "description": "What happened, where, what was expected and what came."},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "@type": {"const": "type.googleapis.com/google.rpc.ErrorInfo"},
                    "reason": {"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$"},
                    "domain": {"type": "string"},
                    "metadata": {
                        "type": "object",
                        "description": "Where it is known: field (a path such as instances[0].x), expected, received, "
                        "limit, hop.",
                        "additionalProperties": {"type": "string"},
                    },
                },
                "required": ["@type", "reason", "domain"],
            },
        },
    },
    "required": ["code", "status", "message", "details"],
}

_HEADERS: Document = {
    "X-Request-Id": {
        "description": "Names this request, for feedback and for logs.",
        "schema": {"type": "string"},
    },
    "X-Penstock-Model": {"description": "The model that answered.", "schema": {"type": "string"}},
    "X-Penstock-Version": {
        "description": "The version that answered.",
        "schema": {"type": "integer", "minimum": 1},
    },
}

_PARAMETERS: Document = {
    "UserId": {
        "name": "x-user-id",
        "in": "header",
        "description": "Who asks. Calls with one id stay on one version while a rollout's weight stays or rises.",
        "schema": {"type": "string"},
    },
    "RequestId": {
        "name": "x-request-id",
        "in": "header",
        "description": "The caller's own id for this request; the gateway makes one otherwise.",
        "schema": {"type": "string"},
    },
    "Version": {
        "name": "x-penstock-version",
        "in": "header",
        "description": "The version that must answer, instead of the one the routes choose.",
        "schema": {"type": "integer", "minimum": 1},
    },
}

_SCALAR_LABEL: Schema = {"type": ["string", "number", "boolean"]}

_FEEDBACK_BODY: Schema = {
    "type": "object",
    "description": "What turned out to be true of an earlier prediction. Give a label or a reward.",
    "properties": {
        "request_id": {"type": "string", "description": "The prediction's x-request-id."},
        "label": {
            "description": "The true label; for several instances an array of them, in order.",
            "anyOf": [_SCALAR_LABEL, {"type": "array", "items": _SCALAR_LABEL, "minItems": 1}],
        },
        "reward": {"type": "number", "description": "How good the answer was; more is better."},
    },
    "required": ["request_id"],
    "anyOf": [{"required": ["label"]}, {"required": ["reward"]}],
    "additionalProperties": False,
}

_FEEDBACK: Document = {
    "operationId": "feedback",
    "summary": "Say what the right answer was",
    "tags": ["feedback"],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Feedback"},
                "example": {"request_id": "5c0ad1f0-8c1c-4a8a-9d5e-0b6f6f6f0b7a", "label": 1},
            }
        },
    },
    "responses": {
        "2XX": {"description": "The feedback is taken."},
        "400": {"$ref": "#/components/responses/Error400"},
    },
}
