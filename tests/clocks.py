"""Time that moves when the test says so, for code that takes `rollout.ports.Clock`."""

from __future__ import annotations


class ManualClock:
    def __init__(self, seconds: float = 1_700_000_000.0) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
