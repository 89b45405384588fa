"""An `InferenceServer` in the test's own process: real ONNX files, real inference by onnxruntime, no Triton.

Starting Triton takes seconds and cannot be made to refuse, stop or forget on demand; the end-to-end tests use it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import onnxruntime as ort

from adapters.sample import zeros
from adapters.server import Address, Artefact, Listed, LoadFailed, NotReady, Served, ServerUnavailable
from adapters.signature import Signature


class OnnxServer:
    """`running` false: nothing answers. `refused`: why loading fails. `loads` counts loads per served name.

    `broken`: served names whose inferences fail.

    `repository` holds models that somebody else put there: content and what the server says of them.
    """

    def __init__(self) -> None:
        self.name = "local"
        self.grpc = Address("127.0.0.1", 8001)
        self.http = Address("127.0.0.1", 8000)
        self.running = True
        self.refused: dict[str, str] = {}
        self.broken: set[str] = set()
        self.loads: Counter[str] = Counter()
        self.loaded: dict[str, tuple[ort.InferenceSession, Signature]] = {}
        self.unloads: list[str] = []
        self.repository: dict[str, tuple[bytes, Signature]] = {}

    def served_name(self, model: str, version: int) -> str:
        return f"{model}.{version}"

    async def live(self) -> bool:
        return self.running

    async def load(self, artefact: Artefact) -> None:
        self._require_running()
        if artefact.served is not None:
            await self.load_own(artefact.served.name)
            return
        name = self.served_name(artefact.model, artefact.version)
        if name in self.refused:
            raise LoadFailed(self.refused[name])
        if name not in self.loaded:
            self.loads[name] += 1
            self.loaded[name] = (ort.InferenceSession(artefact.path.read_bytes()), artefact.signature)

    async def unload(self, model: str, version: int) -> None:
        self._require_running()
        self.unloads.append(self.served_name(model, version))
        self.loaded.pop(self.served_name(model, version), None)

    async def probe(self, artefact: Artefact) -> float:
        self._require_running()
        session, signature = self._session(
            artefact.served or Served(self.served_name(artefact.model, artefact.version), "1")
        )
        started = time.monotonic()
        session.run(None, next(zeros(signature.inputs, rows=1 if signature.batching else None)))
        return time.monotonic() - started

    async def describe(self, served: Served) -> Signature:
        self._require_running()
        return self._session(served)[1]

    async def index(self) -> Sequence[Listed]:
        self._require_running()
        idle = [Listed(Served(name, ""), ready=False) for name in self.repository if name not in self.loaded]
        return [*(Listed(Served(name, "1"), ready=True) for name in self.loaded), *idle]

    async def load_own(self, name: str) -> None:
        self._require_running()
        if name not in self.repository:
            raise LoadFailed(f"{name}: not in the repository")
        model, signature = self.repository[name]
        self.loaded[name] = (ort.InferenceSession(model), signature)

    async def close(self) -> None:
        self.loaded.clear()

    def restart(self) -> None:
        """Come back empty, as an inference server does."""
        self.running = True
        self.loaded.clear()

    def _session(self, served: Served) -> tuple[ort.InferenceSession, Signature]:
        if served.name not in self.loaded or served.version != "1":
            raise NotReady(f"{served} is not loaded")
        if served.name in self.broken:
            raise NotReady(f"{served}: the test inference failed")
        return self.loaded[served.name]

    def _require_running(self) -> None:
        if not self.running:
            raise ServerUnavailable("the server does not answer")
