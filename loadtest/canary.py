"""The canary scenario: a rollout that starts while the load runs, followed to its end.

A greenlet beside the load; its steps become the record's events. Used by `loadtest.main`.
"""

from __future__ import annotations

import time
from pathlib import Path

import gevent

from loadtest.operators import Operators, OperatorsError
from loadtest.plan import Plan
from loadtest.record import Event

SETTLE_S = 3.0
"""Load before the rollout begins and after it has ended, so that both changes of weight happen under load."""

POLL_S = 0.5


class Canary:
    """One rollout under load. `outcome` is empty until it ended; `failed` says why there was none."""

    def __init__(self, plan: Plan, *, begins: float) -> None:
        self.outcome = ""
        self.failed = ""
        self.candidate: int | None = None
        self.events: list[Event] = []
        self._plan = plan
        self._begins = begins
        self._greenlet = gevent.spawn(self._run)

    @property
    def ended(self) -> bool:
        return bool(self._greenlet.ready())

    def stop(self) -> None:
        self._greenlet.kill()

    def _run(self) -> None:
        gevent.sleep(max(0.0, self._begins + SETTLE_S - time.perf_counter()))
        try:
            with Operators(self._plan.server) as operators:
                candidate = self.candidate = self._start(operators)
                self._follow(operators, candidate)
        except OperatorsError as error:
            self.failed = f"the rollout could not be started or followed: {error}"
            return
        gevent.sleep(SETTLE_S)

    def _start(self, operators: Operators) -> int:
        spec = Path(self._plan.rollout_spec).read_text(encoding="utf-8") if self._plan.rollout_spec else ""
        if self._plan.candidate is not None:
            operators.start(self._plan.model, self._plan.candidate, spec)
            return self._plan.candidate
        self._tell(f"deploying {Path(self._plan.deploy).name}")
        return operators.deploy(self._plan.model, Path(self._plan.deploy), spec)

    def _follow(self, operators: Operators, candidate: int) -> None:
        said = ""
        while True:
            rollout = operators.rollout(self._plan.model, candidate)
            if rollout is not None:
                if rollout.state_words != said:
                    said = rollout.state_words
                    self._tell(f"version {candidate}: {said}")
                if rollout.final:
                    self.outcome = f"ended as {said}" + ("" if rollout.state == "promoted" else f" ({rollout.reason})")
                    return
            gevent.sleep(POLL_S)

    def _tell(self, what: str) -> None:
        self.events.append(Event(max(0.0, time.perf_counter() - self._begins), what))
