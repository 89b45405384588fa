"""What every OpenAPI document has in common: errors, headers, feedback. A part of `gateway.contract.openapi`.

The errors are the google.rpc.Status that Envoy and the control plane give; the tests hold these schemas against the
documents, the end-to-end tests against real answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from gateway.contract.json_schema import Schema

Document: TypeAlias = dict[str, Any]

_ERRORS: dict[str, tuple[str, int, str, str]] = {
    "400": ("The request does not fit; the details name the field.", 3, "INVALID_ARGUMENT", "WRONG_COUNT"),
    "404": ("There is no such model, version or request id.", 5, "NOT_FOUND", "UNKNOWN_VERSION"),
    "409": ("It is not what was said before.", 6, "ALREADY_EXISTS", "FEEDBACK_EXISTS"),
    "413": ("The body is larger than this model takes.", 8, "RESOURCE_EXHAUSTED", "TOO_LARGE"),
    "429": ("A limit is reached; try again later.", 8, "RESOURCE_EXHAUSTED", "TOO_MUCH_PENDING"),
    "500": ("The model failed, or answered what it must not.", 13, "INTERNAL", "BAD_ANSWER"),
    "503": ("No server answers for this version now; try again.", 14, "UNAVAILABLE", "UNAVAILABLE"),
    "504": ("The prediction took longer than its deadline.", 4, "DEADLINE_EXCEEDED", "DEADLINE"),
}


_WRONG_COUNT = {"field": "instances[0].x", "expected": "4 values", "received": "3", "hop": "gateway"}


ERRORS_OF_PREDICTIONS = ("400", "404", "413", "500", "503", "504")
ERRORS_OF_FEEDBACK = ("400", "409", "413", "429", "503")


def error_responses(https: Sequence[str]) -> Document:
    """The error responses of these HTTP statuses and of feedback, as components."""
    return {f"Error{h}": _error_response(*_ERRORS[h]) for h in sorted({*https, *ERRORS_OF_FEEDBACK})}


def error_refs(*https: str) -> Document:
    """Responses by HTTP status, each a reference to its component."""
    return {http: {"$ref": f"#/components/responses/Error{http}"} for http in https}


def header_refs(*names: str) -> Document:
    return {name.lower(): {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_response(description: str, code: int, status: str, reason: str) -> Document:
    example = {
        "code": code,
        "status": status,
        "message": "instances[0].x: expected 4 values, received 3" if code == 3 else description,
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "penstock",
                "metadata": _WRONG_COUNT if code == 3 else {"hop": "gateway"},
            }
        ],
    }
    return {
        "description": description,
        "headers": header_refs("X-Request-Id"),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}, "example": example}},
    }


STATUS: Schema = {
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

HEADERS: Document = {
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

PARAMETERS: Document = {
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

_LABEL: Schema = {"type": ["string", "number", "boolean"]}
_REWARD: Schema = {"type": "number"}


def _one_or_several(value: Schema, description: str) -> Schema:
    return {"description": description, "anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}


FEEDBACK: Schema = {
    "type": "object",
    "description": "What turned out to be true of an earlier prediction: a label or a reward.",
    "properties": {
        "request_id": {
            "type": "string",
            "description": "The x-request-id of the prediction.",
            "minLength": 1,
            "maxLength": 128,
            "pattern": "^[!-~]+$",
        },
        "label": _one_or_several(_LABEL, "The true label; for several rows an array of them, in order."),
        "reward": _one_or_several(_REWARD, "How good the answer was, more is better; or one reward per row."),
        "row": {
            "type": ["integer", "null"],
            "description": "Which row this is about, counted from 0, when the request had several.",
            "minimum": 0,
            "maximum": 2**31 - 1,
        },
    },
    "required": ["request_id"],
    "oneOf": [{"required": ["label"]}, {"required": ["reward"]}],
    "additionalProperties": False,
}

FEEDBACK_RECEIPT: Schema = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "state": {"enum": ["joined", "pending"], "description": "Whether it is attributed to a version yet."},
        "duplicate": {"type": "boolean", "description": "The same was said before; nothing changed."},
        "rows": {"type": "integer", "minimum": 0},
        "model": {"type": ["string", "null"]},
        "version": {"type": ["integer", "null"]},
    },
    "required": ["request_id", "state", "duplicate", "rows"],
}

FEEDBACK_OPERATION: Document = {
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
        "200": {
            "description": "It is recorded.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FeedbackReceipt"}}},
        },
        **error_refs(*ERRORS_OF_FEEDBACK),
    },
}
