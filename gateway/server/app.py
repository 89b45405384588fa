"""What both FastAPI applications share: every error in the one shape, whoever raised it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.server.errors import KNOWN_ERRORS, Code, Problem, problem_of

_HTTP_PROBLEMS = {404: (Code.NOT_FOUND, "NOT_FOUND"), 405: (Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED")}


def problem_response(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.body(), status_code=problem.http, headers=problem.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the application the one shape."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in KNOWN_ERRORS:
        app.add_exception_handler(kind, _known)
    # Whatever is left is a defect: Starlette logs it by itself, after the caller got the one shape.
    app.add_exception_handler(Exception, _defect)


async def _known(_request: Request, error: Exception) -> JSONResponse:
    problem = problem_of(error)
    assert problem is not None, "handlers are registered for the kinds that problem_of knows"
    return problem_response(problem)


async def _defect(_request: Request, _error: Exception) -> JSONResponse:
    return problem_response(Problem(Code.INTERNAL, "INTERNAL", "the control plane failed; its log says where"))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = [_validation_detail(found) for found in error.errors()]
    first = details[0]
    message = f"{first['field']}: expected {first['expected']}, received {first['received']}"
    return problem_response(Problem(Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", message, *details))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code, reason = _HTTP_PROBLEMS.get(error.status_code, (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"))
    if error.status_code == 404:
        message = f"there is nothing at {request.url.path}"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "another method")
        message = f"{request.url.path} does not take {request.method}: use {allowed}"
    else:
        message = str(error.detail)
    return problem_response(Problem(code, reason, message, http=error.status_code, headers=dict(error.headers or {})))


def _validation_detail(found: dict[str, Any]) -> dict[str, str]:
    """One of pydantic's findings in our words: where, expected, received."""
    place = ".".join(str(part) for part in found["loc"][1:]) or str(found["loc"][0])
    if found["type"] == "missing":
        return {"field": place, "expected": "a value", "received": "nothing"}
    if found["type"] == "extra_forbidden":
        return {"field": place, "expected": "no such field", "received": _shown(found["input"])}
    if found["type"] == "json_invalid":
        return {"field": "body", "expected": "JSON", "received": f"text that is not JSON: {found['ctx']['error']}"}
    expected = str(found["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return {"field": place, "expected": expected, "received": _shown(found["input"])}


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
