"""Shadow steps on the real stack: a bad candidate is stopped by mirrored requests, and no user ever met it."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.running import Penstock, running
from tests.evidence.callers import Calls, calls
from tests.evidence.versions_onnx import wrong_between

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(400)]

_log = logging.getLogger(__name__)
"""`pytest --log-cli-level=INFO` shows the figures."""

STABLE = wrong_between(0.0, 0.08)
SHADOW = {"share": 100, "requests": 20_000}


async def decided(penstock: Penstock, model: str, *, within_s: float) -> dict[str, Any]:
    async with asyncio.timeout(within_s):
        while True:
            status: dict[str, Any] = await asyncio.to_thread(penstock.rollout, model)
            if status["state"] not in ("pending", "loading", "checking", "shadow"):
                return status
            await asyncio.sleep(0.2)


def start(penstock: Penstock, model: str, candidate: bytes, spec: dict[str, Any]) -> None:
    penstock.deploy_live(model, STABLE)
    assert penstock.deploy(model, candidate, rollout="none")[-1]["stage"] == "unrouted"
    started = httpx.post(
        f"{penstock.operators}/api/v1/models/{model}/rollouts", json={"candidate": 2, "spec": spec}, timeout=30
    )
    assert started.status_code == 201, started.text


def pairs_of(penstock: Penstock) -> dict[str, int]:
    """All paired counts in the journal."""
    totals: dict[str, int] = {}
    with sqlite3.connect(penstock.data_dir / "penstock.db") as db:
        for (body,) in db.execute("SELECT body FROM journal WHERE kind = 'tick'"):
            for name, count in (json.loads(body).get("paired") or {}).items():
                if isinstance(count, int):
                    totals[name] = totals.get(name, 0) + count
    return totals


def nobody_met_the_candidate(seen: Calls) -> bool:
    return not seen.failures and set(seen.versions) == {"1"}


async def test_a_candidate_with_shuffled_labels_is_stopped_with_no_user_exposed(tmp_path: Path) -> None:
    with running(tmp_path / "data") as penstock:
        start(penstock, "shuffled", wrong_between(0.25, 0.75), {"shadow": SHADOW})
        async with calls(penstock, "shuffled", per_s=60, labels=True) as seen:
            status = await decided(penstock, "shuffled", within_s=120)
        pairs = pairs_of(penstock)
        _log.info("stopped after %s; %s", pairs, status["reason"])
        assert status["state"] in ("rolling_back", "rolled_back")
        assert nobody_met_the_candidate(seen)


async def test_a_candidate_two_points_worse_is_stopped_within_5000_mirrored_requests(tmp_path: Path) -> None:
    with running(tmp_path / "data") as penstock:
        # 92 % and 90 % right, three quarters of stable's errors are the candidate's too.
        start(penstock, "worse", wrong_between(0.02, 0.12), {"shadow": SHADOW})
        async with calls(penstock, "worse", per_s=60, labels=True) as seen:
            status = await decided(penstock, "worse", within_s=300)
        pairs = pairs_of(penstock)
        _log.info("stopped after %s; %s", pairs, status["reason"])
        assert status["state"] in ("rolling_back", "rolled_back")
        assert pairs["both_ok"] <= 5_000
        assert nobody_met_the_candidate(seen)


async def test_an_identical_candidate_passes_the_shadow_step(tmp_path: Path) -> None:
    with running(tmp_path / "data") as penstock:
        spec = {"shadow": {"share": 100, "requests": 300, "max_disagreement": "1%"}}
        start(penstock, "same", wrong_between(0.0, 0.0799999), spec)
        async with calls(penstock, "same", per_s=60, labels=True):
            status = await decided(penstock, "same", within_s=200)
        assert status["state"] == "step", status["reason"]
        assert pairs_of(penstock)["both_ok"] >= 300


async def test_mirroring_ends_by_itself_when_nobody_controls_it(tmp_path: Path) -> None:
    """The share is part of the lease: a killed control plane cannot stop it, and need not."""
    with running(tmp_path / "data") as penstock:
        start(penstock, "orphaned", wrong_between(0.0, 0.0799999), {"shadow": SHADOW})
        ports = json.loads((penstock.data_dir / "run" / "ports.json").read_text())

        async def copies() -> int:
            wanted = {"filter": r"^cluster\.penstock-mirror\.upstream_rq_completed$"}
            async with httpx.AsyncClient() as client:
                found = await client.get(f"http://127.0.0.1:{ports['envoy_admin']}/stats", params=wanted)
            # Envoy makes the counter with the first copy.
            return int(found.text.rsplit(": ", 1)[1]) if found.text else 0

        async with calls(penstock, "orphaned", per_s=40, labels=False) as seen:
            async with asyncio.timeout(60):
                while await copies() < 50:
                    await asyncio.sleep(0.1)
            penstock.kill()
            # Until 40 requests in a row were answered without a copy.
            async with asyncio.timeout(60):
                copied, since = await copies(), sum(seen.versions.values())
                while sum(seen.versions.values()) < since + 40:
                    await asyncio.sleep(0.1)
                    if copied != (now := await copies()):
                        copied, since = now, sum(seen.versions.values())
        penstock.start()
        assert nobody_met_the_candidate(seen)
