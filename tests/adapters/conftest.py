"""One real Triton for all tests of the adapters."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from adapters.onnx.describe import describe
from adapters.server import Artefact
from adapters.triton.client import Triton
from tests.triton_server import RunningTriton, triton_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    with triton_server(tmp_path_factory.mktemp("triton")) as running:
        yield running


@pytest.fixture(scope="session")
async def triton(server: RunningTriton) -> AsyncIterator[Triton]:
    """The client that shares its repository folder with the server, as the embedded stack does."""
    client = Triton(name="triton", grpc=server.grpc, http=server.http, repository=server.repository)
    yield client
    await client.close()


@pytest.fixture
def store(tmp_path: Path) -> Callable[[bytes], Path]:
    """Puts content into a file of its own."""

    def put(content: bytes) -> Path:
        path = tmp_path / f"{hashlib.sha256(content).hexdigest()[:16]}.onnx"
        path.write_bytes(content)
        return path

    return put


async def artefact(path: Path, model: str, version: int = 1) -> Artefact:
    """A stored version as the control plane would have it."""
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return Artefact(model=model, version=version, path=path, digest=digest, signature=await describe(path))
