"""Predictions over HTTP and JSON: `Client`, and `AsyncClient` with the same methods to await."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from penstock_client import wire
from penstock_client.answer import Answer
from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.exchange import run, run_async
from penstock_client.options import Call, Given, Settings, Tls
from penstock_client.wire import Reply, Request, Row

_UNANSWERED = (httpx.HTTPError, ssl.SSLError)
"""TLS 1.3 tells a caller that its certificate is missing only when it reads the answer, and httpx lets that through."""


class Client:
    """Calls the models behind one gateway. Keeps connections; close it, or use it in a `with` statement.

    The keywords (`options.Given`) are what every call says unless it says otherwise. Safe to use from several threads.
    """

    def __init__(self, url: str, **given: Unpack[Given]) -> None:
        settings = Settings(**given)
        self._http = httpx.Client(base_url=url, verify=_trust(settings.tls))
        self._calls = wire.Calls(settings)

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """Predict one row (a mapping from input name to value) or several (a list of them).

        `version=` pins the version that answers, `major=` calls another of the model's APIs. Raises PenstockError;
        its subclasses say what to do.
        """
        return run(self._calls.predict(model, inputs, call), self._send)

    def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """Say what was right: the true `label` (one per row as a list), or a `reward` (more is better).

        `row` says which row of a call with several it is about. Raises PenstockError.
        """
        run(self._calls.feedback(request_id, label, reward, row), self._send)

    def descriptor(self, model: str, *, major: int = 1) -> bytes:
        """The model's messages and service, a serialised FileDescriptorSet. Raises PenstockError."""
        return run(self._calls.descriptor(model, major), self._send)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _send(self, request: Request) -> Reply:
        try:
            response = self._http.request(
                request.method, request.path, content=request.content, headers=request.headers, timeout=request.left_s
            )
        except _UNANSWERED as error:
            raise _no_answer(error, self._http.base_url, request) from error
        return Reply(response.status_code, response.headers, response.content)


class AsyncClient:
    """`Client` for asyncio; close it with `aclose`, or use it in an `async with` statement."""

    def __init__(self, url: str, **given: Unpack[Given]) -> None:
        settings = Settings(**given)
        self._http = httpx.AsyncClient(base_url=url, verify=_trust(settings.tls))
        self._calls = wire.Calls(settings)

    async def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As `Client.predict`."""
        return await run_async(self._calls.predict(model, inputs, call), self._send)

    async def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """As `Client.feedback`."""
        await run_async(self._calls.feedback(request_id, label, reward, row), self._send)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, request: Request) -> Reply:
        try:
            response = await self._http.request(
                request.method, request.path, content=request.content, headers=request.headers, timeout=request.left_s
            )
        except _UNANSWERED as error:
            raise _no_answer(error, self._http.base_url, request) from error
        return Reply(response.status_code, response.headers, response.content)


def _trust(tls: Tls | None) -> ssl.SSLContext | bool:
    if tls is None:
        return True
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _no_answer(error: Exception, url: httpx.URL, request: Request) -> PenstockError:
    request_id = request.headers["x-request-id"]
    if isinstance(error, httpx.TimeoutException):
        message = f"{url} did not answer within {request.timeout_s:g} s"
        return error_for(Code.DEADLINE_EXCEEDED, message, reason="DEADLINE", request_id=request_id)
    distrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
    hint = "tls=Tls(ca=...) names an authority to trust" if distrusted else "Does a gateway run there?"
    message = f"no answer from {url}: {error or type(error).__name__}. {hint}"
    return error_for(Code.UNAVAILABLE, message, reason="UNAVAILABLE", request_id=request_id)
