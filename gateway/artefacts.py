"""Model files on disk, named by what is in them: `<root>/sha256/<hex>`, written once and never changed.

Used by the deploy use case, which receives an upload here, looks at it, and then keeps or drops it. A file that was
kept but never registered (a crash in between) is harmless: the next deploy of the same bytes finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


class ArtefactTooLarge(Exception):
    """The upload is larger than the limit; the message names the limit and where it is set."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the artefact is larger than the limit of {limit_bytes:,} bytes: "
            "raise it with `penstock up --max-artefact-bytes N`, or deploy a smaller file"
        )
        self.limit_bytes = limit_bytes


class EmptyArtefact(Exception):
    """The upload held no bytes at all."""

    def __init__(self) -> None:
        super().__init__("the upload is empty: send the model file's bytes as the request's body")


@dataclass(frozen=True, slots=True)
class StagedArtefact:
    """An upload that is complete on disk but not yet kept. `digest` is `sha256:<hex>`; `size` in bytes."""

    path: Path
    digest: str
    size: int


class ArtefactStore:
    """The artefact folder of one data directory.

    `limit_bytes` bounds one upload.
    """

    def __init__(self, *, root: Path, limit_bytes: int) -> None:
        self._kept = root / "sha256"
        self._incoming = root / "incoming"
        self._limit_bytes = limit_bytes

    def prepare(self) -> None:
        """Make the folders and drop uploads that a crash left unfinished. Call once, before the first upload."""
        self._kept.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def path_of(self, digest: str) -> Path:
        """Where the artefact with this `sha256:<hex>` digest is kept."""
        return self._kept / digest.removeprefix("sha256:")

    async def receive(self, chunks: AsyncIterator[bytes]) -> StagedArtefact:
        """Write an upload to a temporary file, hashing on the way, and make it durable.

        Raises ArtefactTooLarge, EmptyArtefact; nothing is left behind then.
        """
        upload = await asyncio.to_thread(_Upload, self._incoming)
        try:
            async for chunk in chunks:
                # In a thread: hashing and writing a chunk must not stall the heartbeats that share this process.
                await asyncio.to_thread(upload.append, chunk)
                if upload.size > self._limit_bytes:
                    raise ArtefactTooLarge(self._limit_bytes)
            if upload.size == 0:
                raise EmptyArtefact
            return await asyncio.to_thread(upload.finish)
        except BaseException:
            upload.discard()
            raise

    def keep(self, staged: StagedArtefact) -> Path:
        """Move a staged artefact to its own name; the bytes and the name are durable on return. Idempotent."""
        path = self.path_of(staged.digest)
        staged.path.chmod(0o444)
        staged.path.replace(path)
        directory = os.open(self._kept, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return path

    def drop(self, staged: StagedArtefact) -> None:
        """Forget a staged artefact; no error when it was kept or dropped before."""
        staged.path.unlink(missing_ok=True)


class _Upload:
    """One temporary file being written and hashed."""

    def __init__(self, directory: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=directory)
        self._file = open(descriptor, "wb")  # noqa: SIM115 - lives as long as the upload, which closes it
        self._path = Path(name)
        self._digest = hashlib.sha256()
        self.size = 0

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    def finish(self) -> StagedArtefact:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return StagedArtefact(path=self._path, digest=f"sha256:{self._digest.hexdigest()}", size=self.size)

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
