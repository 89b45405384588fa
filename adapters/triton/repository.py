"""A Triton model repository that this machine shares with the server, and the manners of changing it.

Used by `adapters.triton.client` for the embedded Triton; a remote one gets the same files by its API. An entry is
written whole or not at all: in a folder beside the repository, then renamed. An entry is taken away only while Triton
does not look: it lists the whole repository in every load, unload and index call, and fails the call when an entry of
somebody else goes away under it ("failed to stat file").
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Repository:
    """One repository folder, changed from one event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._looking = 0
        self._leaving: set[str] = set()

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """While Triton handles a call in which it lists the repository. Such calls run side by side."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1
            self._sweep()

    def write(self, name: str, *, config: str, files: Mapping[str, bytes | Path]) -> None:
        """Put the entry `name` with `config.pbtxt` and `files` (path in it -> content, or a file to link) in place.

        Linked files share the disk space of the stored artefact where the file system allows, and are copied where
        not. An entry of that name is replaced.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _beside(self.folder) as staging:
            entry = staging / "new"
            entry.mkdir()
            (entry / "config.pbtxt").write_text(config, encoding="utf-8")
            for relative, content in files.items():
                target = entry / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    _link(content, target)
                else:
                    target.write_bytes(content)
            place = self.folder / name
            if place.exists():
                place.rename(staging / "old")
            entry.rename(place)

    def keep(self, name: str) -> None:
        """The entry is wanted again, should it be about to leave."""
        self._leaving.discard(name)

    def remove(self, name: str) -> None:
        """Take the entry away as soon as Triton does not look; none there is no error."""
        self._leaving.add(name)
        self._sweep()

    def _sweep(self) -> None:
        if self._looking:
            return  # The last one that looks comes here again.
        for name in self._leaving:
            with _beside(self.folder) as staging:
                if (self.folder / name).exists():
                    (self.folder / name).rename(staging / "old")
        self._leaving.clear()


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder on the same file system, so that a rename is atomic, which Triton does not list."""
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder.parent))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
