"""An `InferenceServer` in the test's own process: real ONNX files, real inference by onnxruntime, no Triton.

Starting Triton takes seconds and cannot be made to refuse, stop or forget on demand; the end-to-end tests use it.
"""

from __future__ import annotations

import time
from collections import Counter

import onnxruntime as ort

from adapters.sample import zeros
from adapters.server import Address, Artefact, LoadFailed, NotReady, ServerUnavailable
from adapters.signature import Signature


class OnnxServer:
    """`running` false: nothing answers. `refused`: why loading fails. `loads` counts loads per served name."""

    def __init__(self) -> None:
        self.name = "local"
        self.grpc = Address("127.0.0.1", 8001)
        self.http = Address("127.0.0.1", 8000)
        self.running = True
        self.refused: dict[str, str] = {}
        self.loads: Counter[str] = Counter()
        self.loaded: dict[str, tuple[ort.InferenceSession, Signature]] = {}

    def served_name(self, model: str, version: int) -> str:
        return f"{model}.{version}"

    async def live(self) -> bool:
        return self.running

    async def load(self, artefact: Artefact) -> None:
        self._require_running()
        name = self.served_name(artefact.model, artefact.version)
        if name in self.refused:
            raise LoadFailed(self.refused[name])
        if name not in self.loaded:
            self.loads[name] += 1
            self.loaded[name] = (ort.InferenceSession(artefact.path.read_bytes()), artefact.signature)

    async def unload(self, model: str, version: int) -> None:
        self._require_running()
        self.loaded.pop(self.served_name(model, version), None)

    async def probe(self, artefact: Artefact) -> float:
        self._require_running()
        session, signature = self._session(artefact.model, artefact.version)
        started = time.monotonic()
        session.run(None, next(zeros(signature.inputs, rows=1 if signature.batching else None)))
        return time.monotonic() - started

    async def describe(self, model: str, version: int) -> Signature:
        self._require_running()
        return self._session(model, version)[1]

    async def close(self) -> None:
        self.loaded.clear()

    def restart(self) -> None:
        """Come back empty, as an inference server does."""
        self.running = True
        self.loaded.clear()

    def _session(self, model: str, version: int) -> tuple[ort.InferenceSession, Signature]:
        name = self.served_name(model, version)
        if name not in self.loaded:
            raise NotReady(f"{name} is not loaded")
        return self.loaded[name]

    def _require_running(self) -> None:
        if not self.running:
            raise ServerUnavailable("the server does not answer")
