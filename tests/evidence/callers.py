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
    """`versions` count answers; `met` are (monotonic time, version) of every answer, failed ones too. A failure says
    which version it came from, "" for none."""

    versions: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    met: list[tuple[float, str]] = field(default_factory=list)

    def times(self, version: str) -> list[float]:
        """When this version answered, in order."""
        return sorted(at for at, answered in self.met if answered == version)


@asynccontextmanager
async def calls(penstock: Penstock, model: str, *, per_s: float, labels: bool, seed: int = 0) -> AsyncIterator[Calls]:
    """Call `model` (`versions_onnx`) at `per_s` requests a second while the block runs, each labelled if `labels`."""
    seen = Calls()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    rng = random.Random(seed)
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=penstock.url, timeout=20, limits=limits) as client:

        async def one() -> None:
            true = rng.randrange(2)
            row = {"x": [float(true), rng.random()]}
            try:
                response = await client.post(f"/v1/models/{model}:predict", json={"instances": [row]})
            except httpx.HTTPError as error:
                seen.failures.append(("", repr(error)))
                return
            version = response.headers.get("x-penstock-version", "")
            seen.met.append((time.monotonic(), version))
            if response.status_code != 200:
                seen.failures.append((version, response.text))
                return
            seen.versions[version] += 1
            if labels:
                feedback = {"request_id": response.headers["x-request-id"], "label": true}
                await client.post("/v1/feedback", json=feedback)

        over = asyncio.Event()

        async def steadily() -> None:
            started, sent = time.monotonic(), 0
            async with asyncio.TaskGroup() as tasks:
                while not over.is_set():
                    intended = started + sent / per_s
                    await asyncio.sleep(max(0.0, intended - time.monotonic()))
                    tasks.create_task(one())
                    sent += 1

        task = asyncio.create_task(steadily())
        try:
            yield seen
        finally:
            over.set()  # Not cancelled: httpx loses a connection that is cancelled while it is made.
            await task
