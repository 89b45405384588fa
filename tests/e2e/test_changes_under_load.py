"""Nothing that an operator does fails a caller's request."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests import models
from tests.e2e.load import load
from tests.e2e.running import Penstock

pytestmark = pytest.mark.e2e

ROW = {"x": [1.0, 2.0, 3.0, 4.0]}
SLOW_SPEC = "steps: [10, 30, 100]\nmin_step: 10m\n"


async def in_thread(function: Any, *arguments: Any, **keywords: Any) -> Any:
    return await asyncio.to_thread(function, *arguments, **keywords)


async def until(penstock: Penstock, model: str, *states: str) -> dict[str, Any]:
    """The rollout's status once it is in one of these states."""
    deadline = time.monotonic() + 60
    while True:
        status: dict[str, Any] = await in_thread(penstock.rollout, model)
        if status["state"] in states:
            return status
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.05)


async def test_deploy_roll_out_promote_and_undo_fail_no_request(penstock: Penstock) -> None:
    model, service = "busy", "penstock.models.busy.v1.Busy"
    await in_thread(penstock.deploy_live, model, models.add(1))
    async with load(penstock, model, service, ROW) as seen:
        await seen.answered(50)
        await in_thread(penstock.deploy_live, "bystander", models.add(7))

        # Ten changes of weight: five rollouts begun and aborted, each 0 -> 10 % -> 0.
        await in_thread(penstock.deploy, model, models.add(2), spec=SLOW_SPEC)
        for _ in range(5):
            await until(penstock, model, "step")
            await seen.answered(100)
            assert (await in_thread(penstock.verb, model, "abort")).status_code == 200
            await until(penstock, model, "aborted")
            await seen.answered(20)
            assert (await in_thread(penstock.verb, model, "retry")).status_code == 200
        assert {"1", "2"} == set(seen.versions()), "the candidate was given traffic"

        await until(penstock, model, "step")
        assert (await in_thread(penstock.verb, model, "promote")).status_code == 200
        await until(penstock, model, "promoted")
        assert await seen.next_versions(100) == {"2"}

        assert (await in_thread(penstock.verb, model, "undo")).status_code == 200
        await until(penstock, model, "rolled_back")
        assert await seen.next_versions(100) == {"1"}
    assert seen.failures == []


async def test_sticky_callers_keep_their_version_while_it_gets_more_traffic(penstock: Penstock) -> None:
    model = "sticky"
    await in_thread(penstock.deploy_live, model, models.add(1))
    await in_thread(penstock.deploy, model, models.add(2), spec=SLOW_SPEC)
    await until(penstock, model, "step")
    users = [f"user-{n}" for n in range(300)]
    async with httpx.AsyncClient() as client:

        async def version(user: str) -> str:
            response = await client.post(
                f"{penstock.url}/v1/models/{model}:predict", json={"instances": [ROW]}, headers={"x-user-id": user}
            )
            assert response.status_code == 200, response.text
            return str(response.headers["x-penstock-version"])

        first = {user: await version(user) for user in users}
        again = {user: await version(user) for user in users}
    assert first == again
    canary = sum(v == "2" for v in first.values())
    assert 10 <= canary <= 60, "10 % of 300 users, by hash"
    assert (await in_thread(penstock.verb, model, "abort")).status_code == 200


async def test_a_caller_can_pin_a_version(penstock: Penstock) -> None:
    model = "pinned"
    await in_thread(penstock.deploy_live, model, models.add(1))
    await in_thread(penstock.deploy, model, models.add(2), spec=SLOW_SPEC)
    await until(penstock, model, "step")
    async with httpx.AsyncClient() as client:
        for version, first in (("1", 2.0), ("2", 3.0)):
            for path, headers in (
                (f"/v1/models/{model}:predict", {"x-penstock-version": version}),
                (f"/v1/models/{model}/versions/{version}:predict", {}),
            ):
                response = await client.post(f"{penstock.url}{path}", json={"instances": [ROW]}, headers=headers)
                assert response.status_code == 200, response.text
                assert response.headers["x-penstock-version"] == version
                assert response.json()["predictions"][0]["y"][0] == first
    assert (await in_thread(penstock.verb, model, "abort")).status_code == 200
