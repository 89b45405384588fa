"""Steady load over typed JSON and typed gRPC from inside a test; remembers every answer and every failure."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from tests.e2e.running import Penstock
from tests.e2e.typed import from_reflection


@dataclass
class Load:
    """`answers` are (monotonic seconds, version); `failures` say protocol and error."""

    answers: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def versions(self, since: float = 0.0) -> Counter[str]:
        return Counter(version for at, version in self.answers if at >= since)

    async def next_versions(self, count: int) -> set[str]:
        """The versions that answer the next `count` requests, without those that were under way already."""
        await self.answered(20)
        first = len(self.answers)
        await self.answered(count)
        return {version for _, version in self.answers[first:]}

    async def answered(self, count: int) -> None:
        """Wait until this many more answers have come."""
        target = len(self.answers) + count
        while len(self.answers) < target:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def load(
    penstock: Penstock, model: str, service: str, row: dict[str, Any], *, workers: int = 2, pause_s: float = 0.01
) -> AsyncIterator[Load]:
    """Keep calling a model from `workers` JSON and as many gRPC callers while the block runs."""
    seen = Load()
    with grpc.insecure_channel(penstock.authority) as channel:
        typed = from_reflection(channel, service)
        message = typed.request([row]).SerializeToString()

    async def json_caller(client: httpx.AsyncClient, user: int) -> None:
        while True:
            try:
                response = await client.post(
                    f"{penstock.url}/v1/models/{model}:predict",
                    json={"instances": [row]},
                    headers={"x-user-id": f"user-{user}-{len(seen.answers)}"},
                )
            except httpx.HTTPError as error:
                seen.failures.append(f"JSON: {error!r}")
            else:
                if response.status_code == 200:
                    seen.answers.append((time.monotonic(), response.headers["x-penstock-version"]))
                else:
                    seen.failures.append(f"JSON: {response.status_code} {response.text}")
            await asyncio.sleep(pause_s)

    async def grpc_caller(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(f"/{service}/Predict")
        while True:
            try:
                running = call(message, timeout=30)
                await running
                headers = dict(await running.initial_metadata())
            except grpc.aio.AioRpcError as error:
                seen.failures.append(f"gRPC: {error.code()} {error.details()}")
            else:
                seen.answers.append((time.monotonic(), headers["x-penstock-version"]))
            await asyncio.sleep(pause_s)

    async with httpx.AsyncClient(timeout=30) as client, grpc.aio.insecure_channel(penstock.authority) as aio:
        tasks = [asyncio.create_task(json_caller(client, n)) for n in range(workers)]
        tasks += [asyncio.create_task(grpc_caller(aio)) for _ in range(workers)]
        try:
            yield seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
