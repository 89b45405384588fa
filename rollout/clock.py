"""The system's time behind `rollout.ports.Clock`; tests pass a virtual one (tests/rollout/virtual.py)."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall clock for the journal, monotonic clock for intervals, the event loop's sleep."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
