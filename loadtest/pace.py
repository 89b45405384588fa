"""When a user sends its next request: in an open loop when the schedule says, in a closed one when it has its answer.

One pace is shared by all users of a process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import gevent
from gevent.queue import SimpleQueue

from loadtest.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Turn:
    """One request that may be sent now. Times are `time.perf_counter` seconds.

    `lag_s` is how late the generator itself was (it slept until `due` and woke later, or woke a free user later);
    `queued_s` how long the request then waited for a user, because all of them waited for answers. Both are part of the
    latency, which counts from `due`.
    """

    due: float
    lag_s: float = 0.0
    queued_s: float = 0.0


class Pace(Protocol):
    """Gives users their turns."""

    def next(self) -> Turn | None:
        """Wait for the next turn; None when there is none left."""

    def stop(self) -> None:
        """Give no more turns."""


class ClosedLoop:
    """Users send as soon as they ask; how long they think in between is theirs. No turns after `ends`."""

    def __init__(self, *, begins: float = 0.0, ends: float = float("inf")) -> None:
        self._begins = begins
        self._ends = ends

    def next(self) -> Turn | None:
        gevent.sleep(max(0.0, self._begins - time.perf_counter()))
        now = time.perf_counter()
        return Turn(now) if now < self._ends else None

    def stop(self) -> None:
        self._ends = 0.0


class OpenLoop:
    """Turns at the instants of a schedule, whether or not earlier requests have been answered.

    `begins` is the schedule's second 0 on `time.perf_counter`. Several worker processes take arrivals in turn. A
    greenlet of its own keeps the time, so that a slow answer delays no later request but the one that finds no user.
    """

    def __init__(self, schedule: Schedule, *, begins: float, worker: int = 0, workers: int = 1) -> None:
        self._instants = schedule.share(worker, workers)
        self._begins = begins
        # Due, called, and whether a user was free to take it then.
        self._turns: SimpleQueue[tuple[float, float, bool] | None] = SimpleQueue()
        self._free = 0
        self._clock = gevent.spawn(self._run)

    def next(self) -> Turn | None:
        self._free += 1
        turn = self._turns.get()
        self._free -= 1
        if turn is None:
            # For the next user.
            self._turns.put(None)
            return None
        due, called, user_free = turn
        now = time.perf_counter()
        if user_free:
            return Turn(due, lag_s=max(0.0, now - due))
        return Turn(due, lag_s=max(0.0, called - due), queued_s=max(0.0, now - called))

    def stop(self) -> None:
        self._clock.kill()
        while not self._turns.empty():
            self._turns.get()
        self._turns.put(None)

    def _run(self) -> None:
        for instant in self._instants:
            due = self._begins + instant
            gevent.sleep(max(0.0, due - time.perf_counter()))
            self._turns.put((due, time.perf_counter(), self._free > self._turns.qsize()))
        self._turns.put(None)
