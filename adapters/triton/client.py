"""Triton as an `InferenceServer`: deliver a version, load it, prove it, unload it, read its signature back.

Used by the control plane, never on the path of a caller's request. The same class drives the embedded Triton, with
which it shares a repository folder, and a remote one (`--triton host:port`), which gets the files by its API.
Errors of gRPC stay here: what comes out are the errors of `adapters.server`, with Triton's own reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import tritonclient.grpc.aio as triton
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from adapters.server import Address, Artefact, Listed, LoadFailed, NotReady, Served, ServerError, ServerUnavailable
from adapters.signature import Signature
from adapters.triton.ask_once import ask_once
from adapters.triton.config import DIGEST, MODEL_FILE, SERVED_VERSION, model_config
from adapters.triton.describe import describe_served
from adapters.triton.reason import short_reason
from adapters.triton.repository import Repository
from adapters.triton.sample_inputs import sample_inputs
from adapters.triton.settings import ModelBackend, TritonSettings

_UNREACHABLE: Final = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"})
_POLL_S: Final = 0.02
"""Pause between two looks at whether an unload is done; Triton has no event for it."""

# No limit of our own on message size: models and their tensors are as large as they are. No keep-alive pings either:
# Triton ends a connection that sends more than one in five minutes, and every call has a time limit of its own.
_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton may be restarted at any time; without a ceiling the reconnect would wait up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Triton:
    """One Triton Inference Server.

    `repository` is the model repository folder shared with it (the embedded Triton); None sends files by API.
    """

    served_version = SERVED_VERSION
    """Triton's own version inside each of its models."""

    def __init__(
        self,
        *,
        name: str,
        grpc: Address,
        http: Address,
        repository: Path | None = None,
        settings: TritonSettings | None = None,
    ) -> None:
        self.name = name
        self.grpc = grpc
        self.http = http
        self._repository = Repository(repository) if repository else None
        backend = ModelBackend.ONNXRUNTIME if repository is None else ModelBackend.PYTHON
        self._settings = settings or TritonSettings(backend=backend)
        self._open: Any = None
        # One change at a time per version; different versions load side by side.
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def served_name(self, model: str, version: int) -> str:
        """One Triton model per version: docs/decisions/0001."""
        return f"{model}.{version}"

    async def live(self) -> bool:
        try:
            return bool(await self._client.is_server_live(client_timeout=self._settings.call_timeout_s))
        except InferenceServerException:
            return False

    async def load(self, artefact: Artefact) -> None:
        if artefact.served is not None:
            if not await self._ready(artefact.served):
                await self.load_own(artefact.served.name)
            return
        served = self.served_name(artefact.model, artefact.version)
        async with self._lock(served):
            if await self._loaded_digest(served) != artefact.digest:
                await self._deliver(served, artefact)

    async def unload(self, model: str, version: int) -> None:
        served = self.served_name(model, version)
        async with self._lock(served):
            await self._withdraw(served)

    async def probe(self, artefact: Artefact) -> float:
        served = artefact.served or Served(self.served_name(artefact.model, artefact.version), SERVED_VERSION)
        signature = artefact.signature
        failure: InferenceServerException | None = None
        for inputs in sample_inputs(signature):
            started = time.monotonic()
            try:
                await ask_once(self._client, served, signature, inputs, timeout_s=self._settings.probe_timeout_s)
            except InferenceServerException as error:
                if error.status() in _UNREACHABLE or failure is None:
                    failure = error
                if error.status() in _UNREACHABLE:
                    break
                continue
            return time.monotonic() - started
        assert failure is not None, "sample_inputs() gives at least one"
        raise await self._translated(failure, NotReady, f"{served.name}: the test inference failed") from failure

    async def describe(self, served: Served) -> Signature:
        timeout = self._settings.call_timeout_s
        try:
            return await describe_served(self._client, served.name, served.version, timeout_s=timeout)
        except InferenceServerException as error:
            raise await self._translated(
                error, NotReady, f"{served.name}: Triton does not describe the model"
            ) from error

    async def index(self) -> Sequence[Listed]:
        try:
            with self._listed():
                answer = await self._client.get_model_repository_index(client_timeout=self._settings.call_timeout_s)
        except InferenceServerException as error:
            raise await self._translated(error, ServerUnavailable, "the repository index could not be read") from error
        return [Listed(Served(m.name, m.version), m.state == "READY", m.reason) for m in answer.models]

    async def load_own(self, name: str) -> None:
        async with self._lock(name):
            try:
                with self._listed():
                    await self._client.load_model(name, client_timeout=self._settings.load_timeout_s)
            except InferenceServerException as error:
                raise await self._translated(error, LoadFailed, f"{name}: Triton did not load the model") from error

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None

    def _listed(self) -> AbstractContextManager[None]:
        """Around a call in which Triton lists the repository."""
        return self._repository.looked_at() if self._repository else nullcontext()

    def _lock(self, served: str) -> asyncio.Lock:
        return self._changing.setdefault(served, asyncio.Lock())

    @property
    def _client(self) -> Any:
        # Opened at first use: an asyncio channel belongs to the event loop that runs then.
        if self._open is None:
            self._open = triton.InferenceServerClient(str(self.grpc), channel_args=_CHANNEL)
        return self._open

    async def _deliver(self, served: str, artefact: Artefact) -> None:
        config = model_config(artefact, name=served, settings=self._settings)
        try:
            if self._repository is None:
                await self._load_by_api(served, config, artefact)
            else:
                self._repository.keep(served)
                await asyncio.to_thread(self._write, self._repository, served, config, artefact)
                with self._listed():
                    await self._client.load_model(served, client_timeout=self._settings.load_timeout_s)
        except OSError as error:
            raise LoadFailed(f"{served}: the model file could not be handed to Triton: {error}") from error
        except InferenceServerException as error:
            self._forget(served)
            if error.status() == "StatusCode.DEADLINE_EXCEEDED":
                limit = f"{self._settings.load_timeout_s:g} s"
                raise LoadFailed(f"{served}: Triton had not loaded the model after {limit} (load_timeout_s)") from error
            raise await self._translated(error, LoadFailed, f"{served}: Triton did not load the model") from error

    def _forget(self, served: str) -> None:
        if self._repository is not None:
            self._repository.remove(served)

    async def _withdraw(self, served: str) -> None:
        try:
            with self._listed():
                await self._client.unload_model(served, client_timeout=self._settings.call_timeout_s)
            # Triton answers before the requests in flight are done; the entry stays until they are. The loop looks
            # again and again because Triton has no event for it, hence the exception to ASYNC110.
            async with asyncio.timeout(self._settings.load_timeout_s):
                while await self._state(served) in {"READY", "UNLOADING"}:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise ServerUnavailable(
                f"{served}: Triton has not finished unloading after {self._settings.load_timeout_s:g} s"
            ) from error
        except InferenceServerException as error:
            raise await self._translated(
                error, ServerUnavailable, f"{served}: Triton did not unload the model"
            ) from error
        self._forget(served)

    async def _load_by_api(self, served: str, config: ModelConfig, artefact: Artefact) -> None:
        content: dict[str, bytes] = {
            f"file:{SERVED_VERSION}/{MODEL_FILE}": await asyncio.to_thread(artefact.path.read_bytes)
        }
        if self._settings.backend is ModelBackend.PYTHON:
            content[f"file:{SERVED_VERSION}/model.py"] = python_model()
        await self._client.load_model(
            served,
            config=json_format.MessageToJson(config, preserving_proto_field_name=True),
            files=content,
            client_timeout=self._settings.load_timeout_s,
        )

    def _write(self, repository: Repository, served: str, config: ModelConfig, artefact: Artefact) -> None:
        content: dict[str, bytes | Path] = {f"{SERVED_VERSION}/{MODEL_FILE}": artefact.path}
        if self._settings.backend is ModelBackend.PYTHON:
            content[f"{SERVED_VERSION}/model.py"] = python_model()
        repository.write(served, config=text_format.MessageToString(config), files=content)

    async def _loaded_digest(self, served: str) -> str | None:
        """Digest of the artefact that is loaded and ready under that name, None when there is none."""
        timeout = self._settings.call_timeout_s
        try:
            if not await self._client.is_model_ready(served, SERVED_VERSION, client_timeout=timeout):
                return None
            answer = await self._client.get_model_config(served, client_timeout=timeout)
        except InferenceServerException as error:
            if error.status() in _UNREACHABLE:
                raise await self._translated(error, ServerUnavailable, f"{served}: cannot be loaded") from error
            return None
        return str(answer.config.parameters[DIGEST].string_value) or None

    async def _ready(self, served: Served) -> bool:
        timeout = self._settings.call_timeout_s
        try:
            return bool(await self._client.is_model_ready(served.name, served.version, client_timeout=timeout))
        except InferenceServerException as error:
            if error.status() in _UNREACHABLE:
                raise await self._translated(error, ServerUnavailable, f"{served.name}: no answer") from error
            return False

    async def _state(self, served: str) -> str:
        with self._listed():
            index = await self._client.get_model_repository_index(client_timeout=self._settings.call_timeout_s)
        return next((str(model.state) for model in index.models if model.name == served), "")

    async def _translated(self, error: InferenceServerException, kind: type[ServerError], what: str) -> ServerError:
        """`kind` with Triton's reason, or ServerUnavailable when there was no Triton to give one."""
        reason = short_reason(str(error.message()))
        where = f"Triton {self.name!r} at {self.grpc}"
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return ServerUnavailable(f"{what}: {where} did not answer in time")
        # A live Triton answers UNAVAILABLE too, for a version that is not ready; then the reason is its own.
        if error.status() == "StatusCode.UNAVAILABLE" and not await self.live():
            return ServerUnavailable(f"{what}: {where} does not answer ({reason})")
        return kind(f"{what}: {reason}")


def python_model() -> bytes:
    """The `model.py` that serves an ONNX file from the Python backend."""
    return (files("adapters.triton") / "python_model.py").read_bytes()
