"""Mutated bodies through the real Envoy with the production configuration, over JSON and typed gRPC."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from adapters.server import Address
from adapters.signature import Datatype
from gateway.envoy.state import Backend
from tests.lua import gateway, vectors
from tests.lua.fuzzing import bodies, oracles
from tests.lua.fuzzing.bodies import MODELS
from tests.lua.fuzzing.oracles import NotAllowed
from tests.lua.fuzzing.run import Failure, Figures
from tests.lua.fuzzing.targets import Wrong, labelled
from tests.lua.upstream import Upstream
from tests.lua.vectors import Model


async def fuzz_envoy(count: int, seed: int) -> Figures:
    """`count` bodies in all: callers' JSON and protobuf, and servers' answers to both."""
    upstream = Upstream()
    await upstream.start()
    figures = Figures()
    try:
        backends = (
            Backend("stub", Address("127.0.0.1", upstream.grpc_port), Address("127.0.0.1", upstream.http_port)),
        )
        routes = tuple(gateway.routes(model, "stub") for model in MODELS)
        with tempfile.TemporaryDirectory() as folder, gateway.running(routes, backends, Path(folder)) as envoy:
            async with (
                httpx.AsyncClient(base_url=envoy.url) as client,
                grpc.aio.insecure_channel(envoy.target) as channel,
            ):
                callers = _Callers(upstream, client, channel)
                await _run(callers, figures, count, random.Random(f"{seed}/envoy"))
    finally:
        await upstream.stop()
    return figures


async def _run(callers: _Callers, figures: Figures, count: int, rng: random.Random) -> None:
    checks = {
        "json requests through Envoy": (callers.json_request, bodies.json_body, bodies.JSON_BITS),
        "typed requests through Envoy": (callers.typed_request, bodies.typed_body, bodies.WIRE_BITS),
        "answers through Envoy": (callers.answer, bodies.answer_body, bodies.WIRE_BITS),
    }
    for name, (check, body_of, bits) in checks.items():
        for k in range(count // len(checks)):
            which = k % len(MODELS)
            body = bodies.mutate(body_of(MODELS[which], rng), rng, bits)
            try:
                figures.add(name, 1, await check(MODELS[which], body))
            except Exception as error:  # whatever it is, it is the finding
                figures.failures.append(Failure(name, which, body, f"{type(error).__name__}: {error}"))


class _Callers:
    """Calls by both protocols, each checked for what the caller gets and what reaches the server."""

    def __init__(self, upstream: Upstream, client: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
        self._upstream = upstream
        self._client = client
        self._channel = channel

    async def json_request(self, made: Model, body: bytes) -> bool:
        self._answer_well(made)
        reply = await self._client.post(made.contract.predict_http_path, content=body)
        try:
            expected = oracles.of_json(made, body)
        except (ValueError, NotAllowed, RecursionError):
            _refused(reply, codes=(3,), statuses=(400, 415))
            return False
        if reply.status_code != 200:
            raise Wrong(f"refused: {reply.text}; the oracle says {expected}")
        self._reached(expected, signs=b"-0" not in body)
        return True

    async def typed_request(self, made: Model, body: bytes) -> bool:
        self._answer_well(made)
        try:
            expected = oracles.of_typed(made, made.classes.request.FromString(body))
        except (DecodeError, NotAllowed):
            expected = None
        error = await self._typed_error(made, body)
        if (error is None) != (expected is not None):
            raise Wrong(f"{error}; the oracle says {expected}")
        if expected is None:
            _status_of(error, grpc.StatusCode.INVALID_ARGUMENT)
            return False
        self._reached(expected)
        return True

    async def answer(self, made: Model, body: bytes) -> bool:
        try:
            arrays = oracles.of_answer(made, body)
        except (DecodeError, NotAllowed):
            arrays = None
        question = bodies.request_arrays(made, random.Random(1))
        self._upstream.answer = lambda request: body
        reply = await self._client.post(made.contract.predict_http_path, json=vectors.json_request(made, question))
        if arrays is None:
            _refused(reply, codes=(13,), statuses=(500,))
            error = await self._typed_error(made, vectors.typed_request(made, question).SerializeToString())
            if _status_of(error, grpc.StatusCode.INTERNAL) != "BAD_ANSWER":
                raise Wrong(f"a server's mistake is called {error}")
        elif reply.status_code != 200:
            raise Wrong(f"{reply.text}; the server said {arrays}")
        else:
            vectors.parse_strict(reply.content)
        return arrays is not None

    def _answer_well(self, made: Model) -> None:
        self._upstream.requests.clear()
        arrays = [vectors.zeros(f, 1 if made.contract.batching else None) for f in made.contract.outputs]
        self._upstream.answer = lambda request: vectors.answer(made, arrays)

    def _reached(self, expected: list[oracles.Sent], *, signs: bool = True) -> None:
        (request,) = self._upstream.requests
        found = [
            oracles.Sent(i.name, tuple(i.shape), vectors.one_nan(Datatype(i.datatype), content))
            for i, content in zip(request.inputs, request.raw_input_contents, strict=True)
        ]
        if signs and found != expected:
            raise Wrong(f"the server received {found}; the oracle says {expected}")

    async def _typed_error(self, made: Model, body: bytes) -> Any:
        try:
            await self._channel.unary_unary(made.contract.predict_grpc_path)(body)
        except grpc.aio.AioRpcError as error:
            return error
        return None


def _refused(reply: httpx.Response, codes: tuple[int, ...], statuses: tuple[int, ...]) -> None:
    if reply.status_code not in statuses or reply.headers["content-type"] != "application/json":
        raise Wrong(f"HTTP {reply.status_code}: {reply.text}")
    labelled(json.loads(reply.content), codes)


def _status_of(error: Any, code: grpc.StatusCode) -> str:
    """The reason in the error's details, which must say what the error says."""
    if error is None or error.code() is not code:
        raise Wrong(f"expected {code}: {error}")
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    if not status.details[0].Unpack(info) or status.message != error.details():
        raise Wrong(f"the details say {status}: {error}")
    return str(info.reason)
