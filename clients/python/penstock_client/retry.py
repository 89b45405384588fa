"""Repeating a call: which failures, after what pause, and how many in all.

Only UNAVAILABLE is repeated: no server has answered then. A prediction may be asked twice, and feedback names its
request, so a repeat of either changes nothing. The budget is gRPC's retry throttling (proposal A6): a failure costs a
token, a success gives back a part of one, and nothing is repeated while less than half is left; so a gateway in
trouble gets at most a few calls more from a client, however many threads it has.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock_client.errors import Code, PenstockError


class Budget:
    """Tokens of one client, shared by its threads and tasks."""

    def __init__(self, *, tokens: float = 10.0, per_success: float = 0.1) -> None:
        self._most = self._tokens = tokens
        self._per_success = per_success
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._per_success)

    def failed(self) -> bool:
        """Take a token; whether a repeat is allowed."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1.0)
            return self._tokens > self._most / 2


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts`: calls in all, 1 for none repeated. The pause before repeat n is random, up to `first_s` * 2^(n-1)
    and at most `longest_s` ("full jitter": callers that failed together do not come back together)."""

    attempts: int = 3
    first_s: float = 0.1
    longest_s: float = 2.0
    budget: Budget = field(default_factory=Budget)
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts: expected at least 1, received {self.attempts}")

    def pause_s(self, error: PenstockError, attempt: int, left_s: float) -> float | None:
        """How long to wait after attempt number `attempt` failed; None to give up. `left_s`: until the deadline."""
        if error.code is not Code.UNAVAILABLE or not self.budget.failed() or attempt >= self.attempts:
            return None
        pause = self.chance() * min(self.longest_s, self.first_s * 2.0 ** (attempt - 1))
        return pause if pause < left_s else None
