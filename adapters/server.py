"""The Protocol every inference server is driven through, and the errors it raises.

Used by the control plane to load and check versions. A version is one immutable artefact; how it maps to the
server's own names is the adapter's business (`served_name`).
"""

from __future__ import annotations

from collections.abc import Sequence
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
class Served:
    """A model by the inference server's own name and version of it."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name!r} version {self.version}"


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a server's repository index. `ready`: loaded, and not being taken down.

    `reason` is the server's, why it is not ready; empty also for a model that nobody asked it to load.
    """

    served: Served
    ready: bool
    reason: str = ""

    @property
    def state(self) -> str:
        """As the Open Inference Protocol says it."""
        return "READY" if self.ready else "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One version. `path` is the immutable file, `digest` its `sha256:<hex>`.

    `served` is set for a version that was in the server's own repository and adopted: there is no file then, and the
    server's files and its model are never changed or taken away.
    """

    model: str
    version: int
    path: Path
    digest: str
    signature: Signature
    served: Served | None = None


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

        Of an adopted version nothing is written: the server loads what it has. Idempotent. Raises LoadFailed,
        ServerUnavailable.
        """
        ...

    async def unload(self, model: str, version: int) -> None:
        """Unload; unknown versions are no error. Requests in flight finish."""
        ...

    async def probe(self, artefact: Artefact) -> float:
        """Complete one real inference with made-up input; seconds it took. Raises NotReady, ServerUnavailable."""
        ...

    async def describe(self, served: Served) -> Signature:
        """The signature as the live server tells it. Raises NotReady, ServerUnavailable."""
        ...

    async def index(self) -> Sequence[Listed]:
        """What the server's repository holds, ours and others'. Raises ServerUnavailable."""
        ...

    async def load_own(self, name: str) -> None:
        """Have the server load a model that lies in its repository. Raises LoadFailed, ServerUnavailable."""
        ...

    async def close(self) -> None: ...
