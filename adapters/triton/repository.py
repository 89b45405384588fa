"""Entries of a Triton model repository that this machine shares with the server.

Written whole or not at all: in a folder beside, then renamed. Used by `adapters.triton.client` for the embedded
Triton; a remote one gets the same files by its API.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_entry(repository: Path, name: str, *, config: str, files: Mapping[str, bytes | Path]) -> None:
    """Put the entry `name` with `config.pbtxt` and `files` (path in the entry -> content, or a file to link) in place.

    Linked files share the disk space of the stored artefact where the file system allows, and are copied where not.
    An entry of that name is replaced.
    """
    repository.mkdir(parents=True, exist_ok=True)
    # In a hidden folder of the same file system, so that the rename is atomic and Triton lists no half entry.
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=repository))
    try:
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
        place = repository / name
        if place.exists():
            place.rename(staging / "old")
        entry.rename(place)
    finally:
        shutil.rmtree(staging)


def remove_entry(repository: Path, name: str) -> None:
    """Take the entry away; none there is no error."""
    shutil.rmtree(repository / name, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
