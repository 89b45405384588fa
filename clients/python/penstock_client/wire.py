"""Typed JSON without I/O: what to send, and what the replies mean.

Each call is an exchange that yields a `Request` and is sent its `Reply`; `Client` and `AsyncClient` only carry them.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock_client.answer import Answer
from penstock_client.errors import Code, InvalidRequest, PenstockError, error_for, error_from_json
from penstock_client.exchange import Attempt, Exchange, LeftS
from penstock_client.options import Call, Options, Settings

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

HTTP_OF_CODE = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
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
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""google.rpc.Code's own mapping, as a gateway answers."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to send. `timeout_s` is for the whole call, `left_s` of it are left."""

    method: str
    path: str
    content: bytes
    headers: Mapping[str, str]
    timeout_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for it. `headers` are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Calls:
    """The exchanges of one client.

    One row is sent as the only instance; a model that does not batch refuses that, and gets the row itself. Such
    models are remembered, so that this happens once.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._not_batching: set[str] = set()

    def predict(self, model: str, inputs: Row | Sequence[Row], call: Call) -> Exchange[Request, Reply, Answer]:
        """One prediction. Raises PenstockError."""
        options = self._settings.options(call)

        def attempt(left_s: LeftS) -> Attempt[Request, Reply, Answer]:
            return self._predict(model, inputs, options, left_s)

        return Exchange(attempt, options.timeout_s, self._settings.retries)

    def feedback(
        self, request_id: str, label: Any, reward: float | None, row: int | None
    ) -> Exchange[Request, Reply, None]:
        """One feedback. Raises PenstockError."""
        options = self._settings.options({})
        given = {"label": label, "reward": reward, "row": row}
        body = {"request_id": request_id, **{name: value for name, value in given.items() if value is not None}}

        def attempt(left_s: LeftS) -> Attempt[Request, Reply, None]:
            reply = yield _post("/v1/feedback", body, options, left_s)
            if not 200 <= reply.status < 300:
                raise _error(reply)

        return Exchange(attempt, options.timeout_s, self._settings.retries)

    def descriptor(self, model: str, major: int) -> Exchange[Request, Reply, bytes]:
        """The model's serialised FileDescriptorSet. Raises PenstockError."""
        options = self._settings.options({})

        def attempt(left_s: LeftS) -> Attempt[Request, Reply, bytes]:
            path = f"/v{major}/models/{model}/clients/descriptor.zip"
            left = left_s()
            reply = yield Request("GET", path, b"", options.http_headers(left), options.timeout_s, left)
            if reply.status != 200:
                raise _error(reply)
            with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
                (name,) = archive.namelist()
                return archive.read(name)

        return Exchange(attempt, options.timeout_s, self._settings.retries)

    def _predict(
        self, model: str, inputs: Row | Sequence[Row], options: Options, left_s: LeftS
    ) -> Attempt[Request, Reply, Answer]:
        path = f"/v{options.major}/models/{model}:predict"
        one_row = isinstance(inputs, Mapping)
        if not (one_row and path in self._not_batching):
            instances = [inputs] if one_row else list(inputs)
            try:
                return _answer((yield _post(path, {"instances": instances}, options, left_s)), model)
            except InvalidRequest as refused:
                if not (one_row and refused.reason == "UNKNOWN_FIELD" and refused.field == "instances"):
                    raise
            self._not_batching.add(path)
        return _answer((yield _post(path, inputs, options, left_s)), model)


def _post(path: str, body: Any, options: Options, left_s: LeftS) -> Request:
    content, left = to_json(body), left_s()
    return Request("POST", path, content, options.http_headers(left), options.timeout_s, left)


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
            rows = [{name: from_json(output) for name, output in row.items()} for row in rows]
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


def from_json(value: Any) -> Any:
    """An output as it was before `to_json`. Outputs of bytes that are not text come as {"b64": ...}."""
    if isinstance(value, list):
        return [from_json(member) for member in value]
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
