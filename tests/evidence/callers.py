"""Callers of the real stack at a steady rate, who tell the truth afterwards; every answer and failure is kept."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.e2e.running import Penstock


@dataclass
class Calls:
    """`latencies_s` are (monotonic time, seconds from the intended start), of successes."""

    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latencies_s: list[tuple[float, float]] = field(default_factory=list)

    def quantile_ms(self, q: float, since: float, until: float) -> float:
        found = sorted(seconds for at, seconds in self.latencies_s if since <= at < until)
        return found[int(q * (len(found) - 1))] * 1000 if found else float("nan")


@asynccontextmanager
async def calls(penstock: Penstock, model: str, *, per_s: float, labels: bool, seed: int = 0) -> AsyncIterator[Calls]:
    """Call `model` (`versions_onnx`) at `per_s` requests a second while the block runs, each labelled if `labels`."""
    seen = Calls()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    rng = random.Random(seed)
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=penstock.url, timeout=20, limits=limits) as client:

        async def one(intended: float) -> None:
            true = rng.randrange(2)
            row = {"x": [float(true), rng.random()]}
            try:
                response = await client.post(f"/v1/models/{model}:predict", json={"instances": [row]})
            except httpx.HTTPError as error:
                seen.failures.append(repr(error))
                return
            if response.status_code != 200:
                seen.failures.append(response.text)
                return
            seen.latencies_s.append((intended, time.monotonic() - intended))
            seen.versions[response.headers["x-penstock-version"]] += 1
            if labels:
                feedback = {"request_id": response.headers["x-request-id"], "label": true}
                await client.post("/v1/feedback", json=feedback)

        async def steadily() -> None:
            started, sent = time.monotonic(), 0
            async with asyncio.TaskGroup() as tasks:
                while True:
                    intended = started + sent / per_s
                    await asyncio.sleep(max(0.0, intended - time.monotonic()))
                    tasks.create_task(one(intended))
                    sent += 1

        task = asyncio.create_task(steadily())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.wait([task])
