"""Calls without I/O: what to send, what the replies mean, what to repeat; and the two ways to carry them out.

An attempt is a generator that yields what to send and is sent what came back. An `Exchange` is a call of one or more
attempts. `run` carries it out in a thread, `run_async` in asyncio; the HTTP and gRPC clients are thin shells around
these.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from penstock_client.errors import PenstockError
from penstock_client.retry import Retries

Sent = TypeVar("Sent")
Received = TypeVar("Received")
Result = TypeVar("Result")

Attempt: TypeAlias = Generator[Sent, Received, Result]

LeftS: TypeAlias = Callable[[], float]
"""Seconds that are left of the call."""


@dataclass(frozen=True)
class Exchange(Generic[Sent, Received, Result]):
    """One call. `attempt` makes a new attempt; `timeout_s` is for all of them and the pauses between."""

    attempt: Callable[[LeftS], Attempt[Sent, Received, Result]]
    timeout_s: float
    retries: Retries


class _Tries:
    """How far one call is."""

    def __init__(self, timeout_s: float, retries: Retries) -> None:
        self._until = time.monotonic() + timeout_s
        self._retries = retries
        self._made = 0

    def left_s(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def pause_s(self, error: PenstockError) -> float:
        """How long to wait before the next attempt. Raises the error when there is to be none."""
        self._made += 1
        pause_s = self._retries.pause_s(error, self._made, self.left_s())
        if pause_s is None:
            raise error
        return pause_s


def run(exchange: Exchange[Sent, Received, Result], send: Callable[[Sent], Received]) -> Result:
    """Carry it out. Raises the last attempt's PenstockError."""
    tries = _Tries(exchange.timeout_s, exchange.retries)
    while True:
        try:
            attempt = exchange.attempt(tries.left_s)
            sent = next(attempt)
            while True:
                sent = attempt.send(send(sent))
        except StopIteration as done:
            exchange.retries.budget.succeeded()
            result: Result = done.value
            return result
        except PenstockError as error:
            pause_s = tries.pause_s(error)
        time.sleep(pause_s)


async def run_async(exchange: Exchange[Sent, Received, Result], send: Callable[[Sent], Awaitable[Received]]) -> Result:
    """Carry it out. Raises the last attempt's PenstockError."""
    tries = _Tries(exchange.timeout_s, exchange.retries)
    while True:
        try:
            attempt = exchange.attempt(tries.left_s)
            sent = next(attempt)
            while True:
                received = await send(sent)
                sent = attempt.send(received)
        except StopIteration as done:
            exchange.retries.budget.succeeded()
            result: Result = done.value
            return result
        except PenstockError as error:
            pause_s = tries.pause_s(error)
        await asyncio.sleep(pause_s)
