"""The one error shape: google.rpc.Status with google.rpc.ErrorInfo, for the HTTP APIs of the control plane.

Envoy's Lua writes the same shape for predictions. `problem_of` is the one table from the errors of the other folders
to codes; those folders know nothing of HTTP.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from adapters.server import BadArtefact, LoadFailed, NotReady, ServerUnavailable
from gateway.adoption import NotAdoptable, NotInRepository
from gateway.artefacts import ArtefactTooLarge, EmptyArtefact
from gateway.codegen.formats import UnknownFormat
from gateway.contract.lines import BadLineName
from gateway.contract.lock_file import BadLock
from gateway.contract.majors import BadApiMajor, BreakingChange
from gateway.contract.model import NoTypedApi
from gateway.contract.names import BadModelName
from gateway.deploy import BadVersionNumber, LockContradicted
from gateway.registry import NameClash, UnknownLine, UnknownModel, UnknownVersion, VersionExists
from gateway.routing import RoutingRefused
from rollout.errors import IllegalVerb, NoRollout, NothingToRollOut, RolloutActive, UndecidableStep
from rollout.evidence.feedback import FeedbackUnavailable
from rollout.evidence.feedback_request import InvalidFeedback
from rollout.evidence.feedback_store import FeedbackConflict, FeedbackRefused, TooMuchPending
from rollout.evidence.golden.file import BadGoldenFile
from rollout.journal import JournalError
from rollout.ports import LoadRefused
from rollout.spec_file import SpecError

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
DOMAIN = "penstock"


class Code(IntEnum):
    """google.rpc.Code."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16

    @property
    def http(self) -> int:
        """The HTTP status of the code, as the transcoding of google.api.http has it."""
        return _HTTP[self]


_HTTP: Mapping[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


class Problem(Exception):
    """An error as callers see it. `reason` is UPPER_SNAKE; each of `details` becomes one ErrorInfo's metadata."""

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *details: Mapping[str, str],
        http: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: Sequence[Mapping[str, str]] = details or ({},)
        self.http = code.http if http is None else http
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {
            "code": int(self.code),
            "status": self.code.name,
            "message": self.message,
            "details": [
                {
                    "@type": ERROR_INFO,
                    "reason": self.reason,
                    "domain": DOMAIN,
                    "metadata": {**metadata, "hop": "control-plane"},
                }
                for metadata in self.details
            ],
        }


_SIMPLE: Sequence[tuple[type[Exception], Code, str]] = (
    (BadModelName, Code.INVALID_ARGUMENT, "BAD_MODEL_NAME"),
    (BadVersionNumber, Code.INVALID_ARGUMENT, "BAD_VERSION"),
    (EmptyArtefact, Code.INVALID_ARGUMENT, "EMPTY_BODY"),
    (BadArtefact, Code.INVALID_ARGUMENT, "BAD_ARTEFACT"),
    (BadGoldenFile, Code.INVALID_ARGUMENT, "BAD_GOLDEN_SET"),
    (NameClash, Code.ALREADY_EXISTS, "NAME_CLASH"),
    (VersionExists, Code.ALREADY_EXISTS, "VERSION_EXISTS"),
    (NoTypedApi, Code.NOT_FOUND, "NO_TYPED_API"),
    (UnknownFormat, Code.INVALID_ARGUMENT, "UNKNOWN_FORMAT"),
    (BadLineName, Code.INVALID_ARGUMENT, "BAD_LINE_NAME"),
    (BadLock, Code.INVALID_ARGUMENT, "BAD_LOCK"),
    (BadApiMajor, Code.INVALID_ARGUMENT, "BAD_API_MAJOR"),
    (UnknownLine, Code.NOT_FOUND, "UNKNOWN_API_MAJOR"),
    (NotInRepository, Code.NOT_FOUND, "NOT_IN_REPOSITORY"),
    (NotAdoptable, Code.FAILED_PRECONDITION, "NOT_ADOPTABLE"),
    (UnknownVersion, Code.NOT_FOUND, "UNKNOWN_VERSION"),
    (NoRollout, Code.NOT_FOUND, "NO_ROLLOUT"),
    (RolloutActive, Code.ALREADY_EXISTS, "ROLLOUT_ACTIVE"),
    (IllegalVerb, Code.FAILED_PRECONDITION, "ILLEGAL_VERB"),
    (NothingToRollOut, Code.FAILED_PRECONDITION, "NOTHING_TO_ROLL_OUT"),
    (UndecidableStep, Code.FAILED_PRECONDITION, "UNDECIDABLE_STEP"),
    (RoutingRefused, Code.FAILED_PRECONDITION, "ROUTING_REFUSED"),
    (LoadRefused, Code.FAILED_PRECONDITION, "LOAD_REFUSED"),
    (JournalError, Code.UNAVAILABLE, "JOURNAL_UNAVAILABLE"),
    (FeedbackUnavailable, Code.UNAVAILABLE, "STORE_UNAVAILABLE"),
    (sqlite3.Error, Code.UNAVAILABLE, "STORE_UNAVAILABLE"),
    (ServerUnavailable, Code.UNAVAILABLE, "SERVER_UNAVAILABLE"),
    (LoadFailed, Code.FAILED_PRECONDITION, "LOAD_FAILED"),
    (NotReady, Code.FAILED_PRECONDITION, "NOT_READY"),
)

KNOWN_ERRORS: Sequence[type[Exception]] = (
    Problem,
    ArtefactTooLarge,
    BreakingChange,
    LockContradicted,
    UnknownModel,
    SpecError,
    InvalidFeedback,
    FeedbackRefused,
    *(kind for kind, _, _ in _SIMPLE),
)
"""What `problem_of` turns into problems; everything else is a defect."""


def problem_of(error: Exception) -> Problem | None:
    """The problem that a known error is; None for one that is a defect of ours."""
    match error:
        case Problem():
            return error
        case ArtefactTooLarge():
            limit = {"expected": f"at most {error.limit_bytes} bytes"}
            return Problem(Code.RESOURCE_EXHAUSTED, "TOO_LARGE", str(error), limit, http=413)
        case BreakingChange():
            changes = [{"field": change.field, "received": change.what} for change in error.verdict.breaking]
            return Problem(Code.FAILED_PRECONDITION, "BREAKING_CHANGE", str(error), *changes, http=409)
        case LockContradicted():
            changes = [{"field": change.field, "received": change.what} for change in error.verdict.breaking]
            return Problem(Code.FAILED_PRECONDITION, "LOCK_CONTRADICTED", str(error), *changes, http=409)
        case UnknownModel():
            named = {"received": error.name, **({"nearest": ", ".join(error.nearest)} if error.nearest else {})}
            return Problem(Code.NOT_FOUND, "UNKNOWN_MODEL", str(error), named)
        case SpecError():
            problems = [
                {"field": p.field, "expected": p.expected, "received": p.received, "line": str(p.line)}
                for p in error.problems
            ]
            return Problem(Code.INVALID_ARGUMENT, "BAD_SPEC", str(error), *problems)
        case InvalidFeedback():
            return Problem(Code.INVALID_ARGUMENT, "BAD_FEEDBACK", str(error), _fields(error))
        case FeedbackConflict():
            return Problem(Code.ALREADY_EXISTS, "FEEDBACK_EXISTS", str(error), _fields(error))
        case TooMuchPending():
            return Problem(Code.RESOURCE_EXHAUSTED, "TOO_MUCH_PENDING", str(error), _fields(error))
        case FeedbackRefused():
            return Problem(Code.FAILED_PRECONDITION, "FEEDBACK_DOES_NOT_FIT", str(error), _fields(error))
        case _:
            for kind, code, reason in _SIMPLE:
                if isinstance(error, kind):
                    return Problem(code, reason, str(error))
            return None


def _fields(error: InvalidFeedback | FeedbackRefused) -> dict[str, str]:
    return {"field": error.field, "expected": error.expected, "received": error.received}
