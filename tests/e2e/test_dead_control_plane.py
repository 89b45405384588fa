"""A control plane that is killed or frozen in the middle of a rollout fails nobody, and takes up where it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.stack.ports import free
from gateway.stack.process import start_time
from tests import models
from tests.e2e.load import Load, load
from tests.e2e.running import Penstock, running
from tests.e2e.test_changes_under_load import ROW, in_thread, until

pytestmark = pytest.mark.e2e

TTL_S = 4.0
SPEC = "steps: [30, 100]\nmin_step: 10m\n"
MODEL, SERVICE = "frail", "penstock.models.frail.v1.Frail"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Penstock]:
    with running(tmp_path, lease_ttl_s=TTL_S) as started:
        yield started


async def at_thirty_percent(penstock: Penstock, seen: Load) -> None:
    await in_thread(penstock.deploy, MODEL, models.add(2), spec=SPEC)
    await until(penstock, MODEL, "step")
    await seen.answered(300)
    assert seen.versions()["2"] > 0, "the candidate has traffic before anything happens"


async def canary_gone(seen: Load) -> float:
    """Wait out the lease; monotonic seconds of the candidate's last answer."""
    await asyncio.sleep(TTL_S + 1.0)  # The lease is real time in Envoy: there is nothing else to wait for.
    assert await seen.next_versions(200) == {"1"}
    return max(at for at, version in seen.answers if version == "2")


async def test_killed_in_mid_rollout(stack: Penstock) -> None:
    await in_thread(stack.deploy_live, MODEL, models.add(1))
    async with load(stack, MODEL, SERVICE, ROW) as seen:
        await at_thirty_percent(stack, seen)
        rollout = (await until(stack, MODEL, "step"))["rollout_id"]
        await callers_of_both(stack, rollout, restarted=False)
        killed = time.monotonic()
        await in_thread(stack.kill)
        assert await canary_gone(seen) - killed <= TTL_S + 0.5
        documents = await in_thread(httpx.get, f"{stack.url}/docs")
        assert documents.status_code == 503
        assert "the control plane could not be reached" in documents.json()["message"]

        await in_thread(stack.start)
        assert any("goes on" in line for line in stack.said), "Envoy and Triton were adopted, not restarted"
        status = await until(stack, MODEL, "step")
        assert status["candidate"] == 2
        resumed = time.monotonic()
        while seen.versions(resumed)["2"] == 0:
            await seen.answered(50)
            assert time.monotonic() - resumed < 30, "the candidate's share comes back"
        await callers_of_both(stack, rollout, restarted=True)

        assert (await in_thread(stack.verb, MODEL, "promote")).status_code == 200
        await until(stack, MODEL, "promoted")
        assert await seen.next_versions(100) == {"2"}
    assert seen.failures == []
    calibration = [r["body"] for r in await in_thread(records, stack, rollout) if r["kind"] == "calibration"]
    assert [found["seconds"] < 1800 for found in calibration] == [True], "there is next to no history yet"
    metrics = (await in_thread(httpx.get, f"{stack.operators}/metrics")).text.splitlines()
    assert "penstock_callers_failing 0.0" in metrics
    assert "penstock_history_uncounted_total 0.0" in metrics


async def callers_of_both(stack: Penstock, rollout: int, *, restarted: bool) -> None:
    """Wait until the journal has a tick with callers of both versions: half of the load is sticky."""
    deadline = time.monotonic() + 60
    while True:
        found = await in_thread(records, stack, rollout)
        if restarted:
            notes = [record["body"].get("text", "") for record in found]
            found = found[next(index for index, text in enumerate(notes) if "restarted" in text) :]
        arms = [record["body"].get("arms") or {} for record in found]
        if any(len(tick) == 2 and all(arm.get("callers", 0) > 0 for arm in tick.values()) for tick in arms):
            return
        assert time.monotonic() < deadline, "no callers in the journal"
        await asyncio.sleep(0.2)


def records(stack: Penstock, rollout: int) -> list[dict[str, Any]]:
    lines = httpx.get(f"{stack.operators}/api/v1/rollouts/{rollout}/journal").text.splitlines()
    return [json.loads(line) for line in lines[1:]]


async def test_frozen_in_mid_rollout(stack: Penstock) -> None:
    await in_thread(stack.deploy_live, MODEL, models.add(1))
    async with load(stack, MODEL, SERVICE, ROW) as seen:
        await at_thirty_percent(stack, seen)
        frozen = time.monotonic()
        stack.signal(signal.SIGSTOP)
        try:
            assert await canary_gone(seen) - frozen <= TTL_S + 0.5
        finally:
            stack.signal(signal.SIGCONT)
        await until(stack, MODEL, "step")
        thawed = time.monotonic()
        while seen.versions(thawed)["2"] == 0:
            await seen.answered(50)
            assert time.monotonic() - thawed < 30, "the candidate's share comes back"
        assert (await in_thread(stack.verb, MODEL, "abort")).status_code == 200
        await until(stack, MODEL, "aborted")
    assert seen.failures == []


async def test_servers_that_die_are_started_again_and_a_clean_stop_leaves_nothing(stack: Penstock) -> None:
    await in_thread(stack.deploy_live, MODEL, models.add(1))
    pids = {name: _pid(stack, name) for name in ("envoy", "triton")}
    for name, pid in pids.items():
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while _pid(stack, name) == pid or not await _serves(stack):
            assert time.monotonic() < deadline, f"{name} did not come back"
            await asyncio.sleep(0.1)
    running_now = [_pid(stack, name) for name in ("envoy", "triton")]
    assert await in_thread(stack.stop) == 0
    with closing(sqlite3.connect(stack.data_dir / "history.db")) as history:
        kept = history.execute("SELECT DISTINCT line FROM stretches").fetchall()
    assert kept == [(MODEL,)], "a clean stop keeps what was counted of stable"
    assert [start_time(pid) for pid in running_now] == [None, None]
    assert free("127.0.0.1", stack.port)
    assert free("127.0.0.1", stack.operator_port)


def _pid(stack: Penstock, name: str) -> int:
    try:
        return int(json.loads((stack.data_dir / "run" / f"{name}.pid").read_text())["pid"])
    except (OSError, ValueError):
        return 0


async def _serves(stack: Penstock) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            response = await client.post(f"{stack.url}/v1/models/{MODEL}:predict", json={"instances": [ROW]}, timeout=5)
        except httpx.HTTPError:
            return False
        return response.status_code == 200
