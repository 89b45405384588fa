"""Predictions over typed gRPC, without generated code: `GrpcClient`, and `AsyncGrpcClient` to await.

The messages are made from the gateway's own reflection, once per model. Feedback is HTTP on the same address, so it
goes through an HTTP client of the same settings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from penstock_client.answer import Answer
from penstock_client.client import AsyncClient, Client
from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.exchange import Attempt, Exchange, LeftS, run, run_async
from penstock_client.grpc_messages import Service, request_of, rows_of, service_in
from penstock_client.options import Call, Given, Options, Settings, Tls
from penstock_client.wire import Row

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""What a gateway lets through; gRPC's own 4 MB would refuse an answer with a few images."""


@dataclass(frozen=True, slots=True)
class _Predict:
    """A prediction to send. `timeout_s`: what is left of the call."""

    service: Service
    request: Message
    options: Options
    timeout_s: float

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.options.headers().items())


@dataclass(frozen=True, slots=True)
class _Reflect:
    """A question to the gateway's reflection."""

    request: ServerReflectionRequest
    timeout_s: float
    headers: Mapping[str, str]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple((name.lower(), value) for name, value in self.headers.items())


@dataclass(frozen=True, slots=True)
class _Reply:
    message: Any
    headers: Mapping[str, str]


_Step: TypeAlias = _Predict | _Reflect


class _Calls:
    """The exchanges of one client, and the models it has met."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._services: dict[tuple[str, int], Service] = {}

    def predict(self, model: str, inputs: Row | Sequence[Row], call: Call) -> Exchange[_Step, _Reply, Answer]:
        options = self._settings.options(call)

        def attempt(left_s: LeftS) -> Attempt[_Step, _Reply, Answer]:
            service = yield from self._service(model, options.major, left_s)
            if service.streams:
                raise error_for(Code.UNIMPLEMENTED, f"{model!r} answers in streams: call predict_stream")
            request = request_of(service, inputs)
            reply = yield _Predict(service, request, options, left_s())
            return _answer(model, service, reply)

        return Exchange(attempt, options.timeout_s, self._settings.retries)

    def stream(self, model: str, inputs: Row | Sequence[Row], call: Call) -> Exchange[_Step, _Reply, _Predict]:
        """What to send for answers in a stream."""
        options = self._settings.options(call)

        def attempt(left_s: LeftS) -> Attempt[_Step, _Reply, _Predict]:
            service = yield from self._service(model, options.major, left_s)
            if not service.streams:
                raise error_for(Code.UNIMPLEMENTED, f"{model!r} has one answer for each request: call predict")
            return _Predict(service, request_of(service, inputs), options, left_s())

        return Exchange(attempt, options.timeout_s, self._settings.retries)

    def descriptor(self, model: str, major: int) -> Exchange[_Step, _Reply, bytes]:
        def attempt(left_s: LeftS) -> Attempt[_Step, _Reply, bytes]:
            return (yield from self._service(model, major, left_s)).descriptor

        return Exchange(attempt, self._settings.timeout_s, self._settings.retries)

    def _service(self, model: str, major: int, left_s: LeftS) -> Attempt[_Step, _Reply, Service]:
        known = self._services.get((model, major))
        if known is None:
            known = self._services[model, major] = yield from self._found(model, major, left_s)
        return known

    def _found(self, model: str, major: int, left_s: LeftS) -> Attempt[_Step, _Reply, Service]:
        headers = self._settings.headers
        listed = yield _Reflect(ServerReflectionRequest(list_services=""), left_s(), headers)
        services = [service.name for service in listed.message.list_services_response.service]
        models = [name for name in services if name.startswith("penstock.models.")]
        # A package has "_" behind a name that programming languages reserve: class_.
        keys = {name: name.split(".")[2].rstrip("_") for name in models}
        wanted = model.replace("-", "_")
        name = next((n for n in models if keys[n] == wanted and n.split(".")[3] == f"v{major}"), None)
        if name is None:
            known = ", ".join(sorted(set(keys.values()))) or "none"
            wanted = repr(model) if major == 1 else f"{model!r} (v{major})"
            raise error_for(Code.NOT_FOUND, f"no model {wanted} here; there are: {known}", reason="UNKNOWN_MODEL")
        found = yield _Reflect(ServerReflectionRequest(file_containing_symbol=name), left_s(), headers)
        return service_in(found.message.file_descriptor_response.file_descriptor_proto, name)


class GrpcClient:
    """Calls the models behind one gateway at `target`: 'host:port' or 'http://host:port' in plain text (h2c),
    'https://host:port' or any target with `tls=` over TLS.

    Close it, or use it in a `with` statement. Keywords as for `Client`. Safe to use from several threads.
    """

    def __init__(self, target: str, **given: Unpack[Given]) -> None:
        address = _Address.of(target, given.get("tls"))
        self._channel = (
            grpc.secure_channel(address.authority, address.credentials(), options=_OPTIONS)
            if address.tls
            else grpc.insecure_channel(address.authority, options=_OPTIONS)
        )
        self._http = Client(address.url, **given)
        self._calls = _Calls(Settings(**given))

    def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As `Client.predict`, but answers hold tensors flat. Inputs may be nested or flat.

        Raises PenstockError, and ValueError or TypeError for inputs that no message of the model can hold.
        """
        return run(self._calls.predict(model, inputs, call), self._send)

    def predict_stream(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Iterator[Answer]:
        """The answers of a decoupled model, as they come. Close the iterator to cancel the rest.

        Raises as `predict` does, between answers too; what has begun to answer is never repeated.
        """
        step = run(self._calls.stream(model, inputs, call), self._send)
        return self._stream(model, step)

    def descriptor(self, model: str, *, major: int = 1) -> bytes:
        """As `Client.descriptor`."""
        return run(self._calls.descriptor(model, major), self._send)

    def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """As `Client.feedback`."""
        self._http.feedback(request_id, label=label, reward=reward, row=row)

    def close(self) -> None:
        self._channel.close()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _stream(self, model: str, step: _Predict) -> Iterator[Answer]:
        call = _streaming(self._channel, step.service)(step.request, timeout=step.timeout_s, metadata=step.metadata)
        try:
            for message in call:
                yield _answer(model, step.service, _Reply(message, dict(call.initial_metadata())))
        except grpc.RpcError as error:
            raise _error_of(error) from error
        finally:
            call.cancel()

    def _send(self, step: _Step) -> _Reply:
        try:
            if isinstance(step, _Reflect):
                stub = ServerReflectionStub(self._channel)
                answers: Iterator[Any] = stub.ServerReflectionInfo(
                    iter([step.request]), timeout=step.timeout_s, metadata=step.metadata
                )
                return _reflected(list(answers))
            message, call = _method(self._channel, step.service).with_call(
                step.request, timeout=step.timeout_s, metadata=step.metadata
            )
            return _Reply(message, dict(call.initial_metadata()))
        except grpc.RpcError as error:
            raise _error_of(error) from error


class AsyncGrpcClient:
    """`GrpcClient` for asyncio; close it with `aclose`, or use it in an `async with` statement."""

    def __init__(self, target: str, **given: Unpack[Given]) -> None:
        address = _Address.of(target, given.get("tls"))
        self._channel = (
            grpc.aio.secure_channel(address.authority, address.credentials(), options=_OPTIONS)
            if address.tls
            else grpc.aio.insecure_channel(address.authority, options=_OPTIONS)
        )
        self._http = AsyncClient(address.url, **given)
        self._calls = _Calls(Settings(**given))

    async def predict(self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]) -> Answer:
        """As `GrpcClient.predict`."""
        return await run_async(self._calls.predict(model, inputs, call), self._send)

    async def predict_stream(
        self, model: str, inputs: Row | Sequence[Row], **call: Unpack[Call]
    ) -> AsyncIterator[Answer]:
        """As `GrpcClient.predict_stream`, an asynchronous iterator."""
        step = await run_async(self._calls.stream(model, inputs, call), self._send)
        streaming = _streaming(self._channel, step.service)
        answers = streaming(step.request, timeout=step.timeout_s, metadata=step.metadata)
        try:
            async for message in answers:
                yield _answer(model, step.service, _Reply(message, dict(await answers.initial_metadata())))
        except grpc.aio.AioRpcError as error:
            raise _error_of(error) from error
        finally:
            answers.cancel()

    async def descriptor(self, model: str, *, major: int = 1) -> bytes:
        """As `Client.descriptor`."""
        return await run_async(self._calls.descriptor(model, major), self._send)

    async def feedback(
        self, request_id: str, *, label: Any = None, reward: float | None = None, row: int | None = None
    ) -> None:
        """As `Client.feedback`."""
        await self._http.feedback(request_id, label=label, reward=reward, row=row)

    async def aclose(self) -> None:
        await self._channel.close()
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, step: _Step) -> _Reply:
        try:
            if isinstance(step, _Reflect):
                stub = ServerReflectionStub(self._channel)
                answers = stub.ServerReflectionInfo(
                    iter([step.request]), timeout=step.timeout_s, metadata=step.metadata
                )
                return _reflected([answer async for answer in answers])
            call = _method(self._channel, step.service)(step.request, timeout=step.timeout_s, metadata=step.metadata)
            message = await call
            return _Reply(message, dict(await call.initial_metadata()))
        except grpc.aio.AioRpcError as error:
            raise _error_of(error) from error


@dataclass(frozen=True, slots=True)
class _Address:
    """Where a gateway is, for gRPC and for HTTP."""

    authority: str
    tls: Tls | None

    @classmethod
    def of(cls, target: str, tls: Tls | None) -> _Address:
        scheme, found, rest = target.partition("://")
        if found and scheme not in ("http", "https"):
            raise ValueError(f"{target!r}: expected 'host:port', 'http://host:port' or 'https://host:port'")
        authority = (rest if found else target).rstrip("/")
        if scheme == "https" and found and ":" not in authority.rpartition("]")[2]:
            authority += ":443"
        return cls(authority, tls or (Tls() if found and scheme == "https" else None))

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    def credentials(self) -> Any:
        def content(path: Path | None) -> bytes | None:
            return None if path is None else path.read_bytes()

        tls = self.tls or Tls()
        return grpc.ssl_channel_credentials(content(tls.ca), content(tls.key), content(tls.certificate))


_OPTIONS = [(f"grpc.max_{way}_message_length", _MAX_MESSAGE_BYTES) for way in ("send", "receive")] + [
    # Repeats are this client's own business: they have a budget and tell the caller's deadline.
    ("grpc.enable_retries", 0)
]


def _method(channel: Any, service: Service) -> Any:
    return channel.unary_unary(
        service.path,
        request_serializer=service.request.SerializeToString,
        response_deserializer=service.response.FromString,
    )


def _streaming(channel: Any, service: Service) -> Any:
    return channel.unary_stream(
        service.path,
        request_serializer=service.request.SerializeToString,
        response_deserializer=service.response.FromString,
    )


def _reflected(answers: Sequence[ServerReflectionResponse]) -> _Reply:
    if not answers:
        raise error_for(Code.INTERNAL, "the reflection service gave no answer: is this a Penstock gateway?")
    (answer, *_) = answers
    if answer.HasField("error_response"):
        refused = answer.error_response
        raise error_for(refused.error_code, f"reflection: {refused.error_message}")
    return _Reply(answer, {})


def _answer(model: str, service: Service, reply: _Reply) -> Answer:
    headers = reply.headers
    if "x-penstock-version" not in headers:
        raise error_for(Code.INTERNAL, "the answer does not say its version: is this a Penstock gateway?")
    return Answer(
        rows=rows_of(service, reply.message),
        batched=service.batching,
        model=headers.get("x-penstock-model", model),
        version=int(headers["x-penstock-version"]),
        request_id=headers.get("x-request-id", ""),
    )


def _error_of(error: Any) -> PenstockError:
    """The error of a failed call, sync (grpc.RpcError, which is itself the call) or async (AioRpcError)."""
    metadata = dict((*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())))
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(metadata.get("grpc-status-details-bin", b""))
    for detail in status.details:
        if detail.Unpack(info):
            break
    return error_for(
        error.code().value[0],
        error.details() or error.code().name,
        reason=info.reason,
        metadata=info.metadata,
        request_id=str(metadata.get("x-request-id", "")),
    )
