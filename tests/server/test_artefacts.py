"""Artefacts are named by their content, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.artefacts import ArtefactStore, ArtefactTooLarge, EmptyArtefact
from tests.server.plant import chunked

BODY = b"a model, more or less" * 100
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    store = ArtefactStore(root=tmp_path, limit_bytes=len(BODY))
    store.prepare()
    return store


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_an_upload_is_kept_under_its_digest_and_cannot_be_written(store: ArtefactStore, tmp_path: Path) -> None:
    staged = await store.receive(chunked(BODY))
    assert (staged.digest, staged.size) == (DIGEST, len(BODY))
    kept = store.keep(staged)
    assert kept == tmp_path / "sha256" / DIGEST.removeprefix("sha256:") == store.path_of(DIGEST)
    assert kept.read_bytes() == BODY
    assert kept.stat().st_mode & 0o222 == 0


async def test_keeping_the_same_bytes_twice_keeps_one_file(store: ArtefactStore, tmp_path: Path) -> None:
    for _ in range(2):
        store.keep(await store.receive(chunked(BODY)))
    assert len(files(tmp_path)) == 1


async def test_a_dropped_upload_leaves_nothing(store: ArtefactStore, tmp_path: Path) -> None:
    staged = await store.receive(chunked(BODY))
    store.drop(staged)
    store.drop(staged)
    assert files(tmp_path) == []


async def test_an_upload_above_the_limit_is_refused_with_the_limit(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtefactTooLarge, match=f"limit of {len(BODY):,} bytes"):
        await store.receive(chunked(BODY + b"!"))
    assert files(tmp_path) == []


async def test_an_empty_upload_is_refused(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(EmptyArtefact):
        await store.receive(chunked(b""))
    assert files(tmp_path) == []


async def test_an_upload_that_breaks_off_leaves_nothing(store: ArtefactStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BODY
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.receive(broken())
    assert files(tmp_path) == []


async def test_leftovers_of_a_crash_are_gone_at_the_next_start(store: ArtefactStore, tmp_path: Path) -> None:
    staged = await store.receive(chunked(BODY))
    assert staged.path.exists()
    ArtefactStore(root=tmp_path, limit_bytes=1).prepare()
    assert files(tmp_path) == []
