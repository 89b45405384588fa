"""Golden sets over the operators' API: kept by digest, refused by line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx

from tests.server.plant import Plant

FILE = b'{"inputs": {"x": [1.0]}, "label": 1}\n'


async def test_a_file_is_kept_by_its_digest(tmp_path: Path) -> None:
    async with _client(Plant(tmp_path)) as client:
        stored = await client.put("/api/v1/golden", content=FILE)
        assert stored.json() == {"digest": f"sha256:{hashlib.sha256(FILE).hexdigest()}", "examples": 1}


async def test_what_is_wrong_is_told_by_line(tmp_path: Path) -> None:
    async with _client(Plant(tmp_path)) as client:
        refused = await client.put("/api/v1/golden", content=FILE + b"{}\n")
    assert refused.status_code == 400
    assert refused.json()["details"][0]["reason"] == "BAD_GOLDEN_SET"
    assert "line 2" in refused.json()["message"]


async def test_a_version_that_was_not_checked_has_no_result(tmp_path: Path) -> None:
    async with _client(Plant(tmp_path)) as client:
        assert (await client.get("/api/v1/models/digits/golden/2")).status_code == 404
        assert (await client.get("/api/v1/models/digits/golden/2/picture")).status_code == 404


def _client(plant: Plant) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(plant.operators), base_url="http://operators")
