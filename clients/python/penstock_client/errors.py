"""What can go wrong with a call, named by what the caller should do next.

Every error of a Penstock gateway is a google.rpc.Status, over HTTP and over gRPC; both clients raise these from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """google.rpc.Code."""

    CANCELLED = 1
    UNKNOWN = 2
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
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class PenstockError(Exception):
    """Base of all. `metadata` is what the gateway said beside the message; the properties read the common parts."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.request_id = request_id

    @property
    def field(self) -> str:
        """Path of the field that is wrong, such as instances[0].x; '' when it is not about a field."""
        return self.metadata.get("field", "")

    @property
    def expected(self) -> str:
        return self.metadata.get("expected", "")

    @property
    def received(self) -> str:
        return self.metadata.get("received", "")


class InvalidRequest(PenstockError):
    """The request does not fit the model: correct what `field` names."""


class NotFound(PenstockError):
    """No such model or version (or request id, for feedback): the message names what there is."""


class NotAllowed(PenstockError):
    """Credentials are missing or do not suffice."""


class TooMuch(PenstockError):
    """The request is too large, or a limit on calls is reached: send less, or later."""


class Unavailable(PenstockError):
    """No answer from the gateway, or from the model's server: try again after a while."""


class DeadlineExceeded(PenstockError):
    """The answer did not come in time: allow more, or send fewer rows at once."""


class ServerFault(PenstockError):
    """The model or the gateway failed; tell its operators the request id."""


_CLASSES: Mapping[Code, type[PenstockError]] = {
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.FAILED_PRECONDITION: InvalidRequest,
    Code.OUT_OF_RANGE: InvalidRequest,
    Code.ALREADY_EXISTS: InvalidRequest,
    Code.UNIMPLEMENTED: InvalidRequest,
    Code.NOT_FOUND: NotFound,
    Code.PERMISSION_DENIED: NotAllowed,
    Code.UNAUTHENTICATED: NotAllowed,
    Code.RESOURCE_EXHAUSTED: TooMuch,
    Code.UNAVAILABLE: Unavailable,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def error_for(
    code: int, message: str, *, reason: str = "", metadata: Mapping[str, str] | None = None, request_id: str = ""
) -> PenstockError:
    """The error of a google.rpc.Status with (at most) one google.rpc.ErrorInfo."""
    known = Code(code) if code in Code.__members__.values() else Code.UNKNOWN
    kind = _CLASSES.get(known, ServerFault)
    return kind(known, message, reason=reason, metadata=metadata, request_id=request_id)


def error_from_json(status: Mapping[str, Any], request_id: str) -> PenstockError:
    """The error of a Status in JSON, as the gateway's HTTP answers carry it."""
    details = [d for d in status.get("details", ()) if isinstance(d, Mapping) and d.get("reason")]
    info: Mapping[str, Any] = details[0] if details else {}
    return error_for(
        int(status["code"]),
        str(status.get("message", "")),
        reason=str(info.get("reason", "")),
        metadata={str(k): str(v) for k, v in dict(info.get("metadata", {})).items()},
        request_id=request_id,
    )
