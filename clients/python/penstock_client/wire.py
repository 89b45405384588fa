"""Typed JSON without I/O: what to send, and what the replies mean.

Each call is a generator that yields a `Post` and is sent its `Reply`; `Client` and `AsyncClient` only carry them.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock_client.answer import Answer
from penstock_client.errors import Code, InvalidRequest, PenstockError, error_for, error_from_json

Row: TypeAlias = Mapping[str, Any]
"""Input name -> value: a number, text, bytes, nested lists, or anything with `tolist()` such as a numpy array."""

_CODE_OF_HTTP = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
"""For answers that are not the gateway's own (those say their code)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a call says beside its inputs. `timeout_s`: seconds for the whole call."""

    timeout_s: float
    version: int | None = None
    user_id: str | None = None
    request_id: str | None = None

    def with_call(
        self, version: int | None, user_id: str | None, request_id: str | None, timeout_s: float | None
    ) -> Options:
        """A client's own options with those of one call over them."""
        return Options(
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            version=version,
            user_id=self.user_id if user_id is None else user_id,
            request_id=request_id,
        )

    def headers(self) -> dict[str, str]:
        """The headers of the call, for HTTP and gRPC alike."""
        found = {
            "x-penstock-version": None if self.version is None else str(self.version),
            "x-user-id": self.user_id,
            "x-request-id": self.request_id,
        }
        return {name: value for name, value in found.items() if value is not None}

    def http_headers(self) -> dict[str, str]:
        """With the deadline too, so that the gateway stops working when the caller stops waiting."""
        return {
            **self.headers(),
            "content-type": "application/json",
            "grpc-timeout": f"{max(1, math.ceil(self.timeout_s * 1000))}m",
        }


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP request to send."""

    path: str
    content: bytes
    options: Options


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for it. `headers` are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def predict(
    model: str, inputs: Row | Sequence[Row], options: Options, not_batching: set[str]
) -> Generator[Post, Reply, Answer]:
    """The exchange of one prediction: yields what to send, is sent what came back, returns the answer.

    One row is sent as the only instance; a model that does not batch refuses that, and gets the row itself. Such
    models are remembered in `not_batching`, so that this happens once. Raises PenstockError.
    """
    path = f"/v1/models/{model}:predict"
    one_row = isinstance(inputs, Mapping)
    if not (one_row and model in not_batching):
        instances = [inputs] if one_row else list(inputs)
        try:
            return _answer((yield Post(path, to_json({"instances": instances}), options)), model)
        except InvalidRequest as refused:
            if not (one_row and refused.reason == "UNKNOWN_FIELD" and refused.field == "instances"):
                raise
        not_batching.add(model)
    return _answer((yield Post(path, to_json(inputs), options)), model)


def feedback(
    request_id: str, label: Any, reward: float | None, row: int | None, options: Options
) -> Generator[Post, Reply, None]:
    """The exchange of one feedback. Raises PenstockError."""
    given = {"label": label, "reward": reward, "row": row}
    body = {"request_id": request_id, **{name: value for name, value in given.items() if value is not None}}
    reply = yield Post("/v1/feedback", to_json(body), options)
    if not 200 <= reply.status < 300:
        raise _error(reply)


def to_json(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        # Numbers that are not finite are strings in proto3's JSON. Rare, so looked for only when there is one.
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=_plain)
    return text.encode()


def _answer(reply: Reply, model: str) -> Answer:
    if reply.status != 200:
        raise _error(reply)
    try:
        value = json.loads(reply.body)
        predictions = value.get("predictions")
        batched = isinstance(predictions, list)
        rows = predictions if batched else [value]
        if b'"b64"' in reply.body:
            rows = [{name: _with_bytes(output) for name, output in row.items()} for row in rows]
        return Answer(
            rows=tuple(rows),
            batched=batched,
            model=reply.headers.get("x-penstock-model", model),
            version=int(reply.headers["x-penstock-version"]),
            request_id=reply.headers.get("x-request-id", ""),
        )
    except (ValueError, KeyError, AttributeError) as error:
        message = f"the answer is not a prediction of a Penstock gateway: {_shown(reply.body)}"
        raise error_for(Code.INTERNAL, message, request_id=reply.headers.get("x-request-id", "")) from error


def _error(reply: Reply) -> PenstockError:
    """The error in a reply, whoever made it."""
    request_id = reply.headers.get("x-request-id", "")
    try:
        return error_from_json(json.loads(reply.body), request_id)
    except (ValueError, KeyError, TypeError, AttributeError):
        code = _CODE_OF_HTTP.get(reply.status, Code.UNKNOWN)
        return error_for(code, f"HTTP {reply.status}: {_shown(reply.body)}", request_id=request_id)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    raise TypeError(
        f"an input is a {type(value).__name__}: expected numbers, text, bytes, nested lists of them, or a numpy array"
    )


def _with_bytes(value: Any) -> Any:
    """Outputs of bytes that are not text come as {"b64": ...}."""
    if isinstance(value, list):
        return [_with_bytes(member) for member in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _finite(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return value


def _shown(body: bytes) -> str:
    text = body[:200].decode(errors="replace").strip()
    return text if len(body) <= 200 else f"{text}..."
