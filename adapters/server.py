"""The Protocol every inference server is driven through, and the errors it raises.

Used by the control plane to load and check versions. A version is one immutable artefact; how it maps to the
server's own names is the adapter's business (`served_name`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.signature import Signature


class ServerError(Exception):
    """Base of what an inference server can do wrong; the message is for a person."""


class ServerUnavailable(ServerError):
    """The server did not answer: start it, or correct its address."""


class LoadFailed(ServerError):
    """The server refused or failed to load the version; the server's reason is in the message."""


class NotReady(ServerError):
    """The version is not loaded, or its test inference did not complete."""


class BadArtefact(ServerError):
    """The file is not a model that can be served; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One stored version: `path` is the immutable file, `digest` its `sha256:<hex>`."""

    model: str
    version: int
    path: Path
    digest: str
    signature: Signature


class InferenceServer(Protocol):
    """One inference server (or pool behind one address)."""

    name: str
    grpc: Address
    http: Address

    def served_name(self, model: str, version: int) -> str:
        """The server's own model name for a version: one server-side model per version (docs/decisions)."""
        ...

    async def live(self) -> bool:
        """Whether the server answers at all. Never raises."""
        ...

    async def load(self, artefact: Artefact) -> None:
        """Write what the server needs, load the version and wait until the server says it is loaded.

        Idempotent. Raises LoadFailed, ServerUnavailable.
        """
        ...

    async def unload(self, model: str, version: int) -> None:
        """Unload; unknown versions are no error. Requests in flight finish."""
        ...

    async def probe(self, artefact: Artefact) -> float:
        """Complete one real inference with made-up input; seconds it took. Raises NotReady, ServerUnavailable."""
        ...

    async def describe(self, model: str, version: int) -> Signature:
        """The signature as the live server tells it. Raises NotReady, ServerUnavailable."""
        ...

    async def close(self) -> None: ...
