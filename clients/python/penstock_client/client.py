"""Predictions over HTTP and JSON: `Client`, and `AsyncClient` with the same methods to await."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from penstock_client import wire
from penstock_client.answer import Answer
from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.wire import Options, Post, Reply, Row

DEFAULT_TIMEOUT_S = 10.0
"""Long enough for a slow model, short enough for a person who waits."""

_Result = TypeVar("_Result")


class Client:
    """Calls the models behind one gateway. Keeps connections; close it, or use it in a `with` statement.

    `user_id` names the caller in every call (a call can name another): during a rollout, one user stays on one
    version. `timeout_s` is for a whole call, seconds.
    """

    def __init__(self, url: str, *, user_id: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._http = httpx.Client(base_url=url)
        self._defaults = Options(timeout_s=timeout_s, user_id=user_id)
        self._not_batching: set[str] = set()

    def predict(
        self,
        model: str,
        inputs: Row | Sequence[Row],
        *,
        version: int | None = None,
        user_id: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Predict one row (a mapping from input name to value) or several (a list of them).

        `version` pins the version that answers. Raises PenstockError; its subclasses say what to do.
        """
        options = self._defaults.with_call(version, user_id, request_id, timeout_s)
        return self._run(wire.predict(model, inputs, options, self._not_batching))

    def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """Say what was right: the true `label` (one per row as a list), or a `reward` (more is better).

        `row` says which row of a call with several it is about. Raises PenstockError.
        """
        self._run(wire.feedback(request_id, label, reward, row, self._defaults))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self, exchange: Generator[Post, Reply, _Result]) -> _Result:
        post = next(exchange)
        while True:
            reply = self._send(post)
            try:
                post = exchange.send(reply)
            except StopIteration as done:
                result: _Result = done.value
                return result

    def _send(self, post: Post) -> Reply:
        try:
            response = self._http.post(post.path, content=post.content, **_sending(post.options))
        except httpx.HTTPError as error:
            raise _no_answer(error, self._http.base_url, post.options) from error
        return Reply(response.status_code, response.headers, response.content)


class AsyncClient:
    """`Client` for asyncio; close it with `aclose`, or use it in an `async with` statement."""

    def __init__(self, url: str, *, user_id: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._http = httpx.AsyncClient(base_url=url)
        self._defaults = Options(timeout_s=timeout_s, user_id=user_id)
        self._not_batching: set[str] = set()

    async def predict(
        self,
        model: str,
        inputs: Row | Sequence[Row],
        *,
        version: int | None = None,
        user_id: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """As `Client.predict`."""
        options = self._defaults.with_call(version, user_id, request_id, timeout_s)
        return await self._run(wire.predict(model, inputs, options, self._not_batching))

    async def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """As `Client.feedback`."""
        await self._run(wire.feedback(request_id, label, reward, row, self._defaults))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, exchange: Generator[Post, Reply, _Result]) -> _Result:
        post = next(exchange)
        while True:
            reply = await self._send(post)
            try:
                post = exchange.send(reply)
            except StopIteration as done:
                result: _Result = done.value
                return result

    async def _send(self, post: Post) -> Reply:
        try:
            response = await self._http.post(post.path, content=post.content, **_sending(post.options))
        except httpx.HTTPError as error:
            raise _no_answer(error, self._http.base_url, post.options) from error
        return Reply(response.status_code, response.headers, response.content)


def _sending(options: Options) -> dict[str, Any]:
    return {"headers": options.http_headers(), "timeout": options.timeout_s}


def _no_answer(error: httpx.HTTPError, url: httpx.URL, options: Options) -> PenstockError:
    request_id = options.request_id or ""
    if isinstance(error, httpx.TimeoutException):
        message = f"{url} did not answer within {options.timeout_s:g} s"
        return error_for(Code.DEADLINE_EXCEEDED, message, reason="DEADLINE", request_id=request_id)
    message = f"no answer from {url}: {error or type(error).__name__}. Does a gateway run there?"
    return error_for(Code.UNAVAILABLE, message, reason="UNAVAILABLE", request_id=request_id)
