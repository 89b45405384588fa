"""Carries out the machine's acts on servers and routes, and tries again for as long as they fail.

Used by `rollout.controller`, one task per rollout, so that a slow load or a data plane that does not answer holds up
neither the loop nor another rollout. What to do is the machine's business (`rollout.machine.acts`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rollout.machine import Act, Event
from rollout.ports import Clock, LoadRefused, RouteRefused, Routing, Serving
from rollout.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. `refusal`: why the candidate must not be exposed, in words; empty when it may.

    `note` is kept in the rollout's history, with `details` for programs and pictures.
    """

    refusal: str = ""
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


Check = Callable[[str, int, int], Awaitable[Checked]]
"""(model, stable, candidate) -> whether the candidate may be exposed."""

T = TypeVar("T")

Report = Callable[[Run, Event, str], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. `first` and `longest` bound the doubling wait between attempts; `call` bounds one call to the data
    plane or an unload; `drain` is left for requests on their way before a version is unloaded."""

    first: float = 0.5
    longest: float = 15.0
    call: float = 20.0
    drain: float = 10.0


class NotYet(Exception):
    """What an act needs is not there yet; the message is shown while it is tried again."""


class Performer:
    """`in_use(run, version)`: whether something other than the run needs the version loaded."""

    def __init__(
        self,
        *,
        serving: Serving,
        routing: Routing,
        clock: Clock,
        checks: tuple[Check, ...],
        patience: Patience,
        in_use: Callable[[Run, int], bool],
        report: Report,
    ) -> None:
        self._serving = serving
        self._routing = routing
        self._clock = clock
        self._checks = checks
        self._patience = patience
        self._in_use = in_use
        self._report = report
        self._loading: dict[str, asyncio.Lock] = {}

    async def perform(self, run: Run, acts: tuple[Act, ...]) -> None:
        """Do the acts in order and report what came of each. Returns early when one cannot succeed."""
        for act in acts:
            if act in (Act.UNLOAD_CANDIDATE, Act.UNLOAD_STABLE):
                await self._unload(run, run.candidate if act is Act.UNLOAD_CANDIDATE else run.stable)
                continue
            event, reason = await self._insist(run, act)
            if event is not None:
                self._report(run, event, reason)

    async def _insist(self, run: Run, act: Act) -> tuple[Event | None, str]:
        """One act, again and again with longer pauses until it succeeds or is refused for good."""
        wait = self._patience.first
        while True:
            try:
                outcome = await self._once(run, act)
            except Exception as error:
                if (refused := _refused(act, error)) is not None:
                    run.working(act.value)
                    return refused, str(error) or type(error).__name__
                attempts = run.failing(act.value, _said(error), self._clock.now())
                level = logging.INFO if isinstance(error, NotYet) else logging.WARNING
                log.log(level, "%s of %s.%d, attempt %d: %s", act, run.model, run.candidate, attempts, _said(error))
                await self._clock.sleep(wait)
                wait = min(2 * wait, self._patience.longest)
            else:
                run.working(act.value)
                return outcome

    async def _once(self, run: Run, act: Act) -> tuple[Event | None, str]:
        model, stable, candidate = run.model, run.stable, run.candidate
        match act:
            case Act.LOAD:
                async with self._lock(model):
                    await self._serving.load(model, candidate)
                return Event.LOADED, f"version {candidate} is loaded and completed a test inference"
            case Act.CHECK:
                return await self._check(run)
            case Act.PROMOTE:
                await self._require_ready(model, candidate)
                await self._bounded(self._routing.promote(model, candidate))
                return Event.SWAPPED, ""
            case Act.RESTORE:
                if not await self._bounded(self._serving.ready(model, stable)):
                    # Within the rollback window it is ready; else the way back must not wait for somebody to load it.
                    async with self._lock(model):
                        await self._serving.load(model, stable)
                await self._bounded(self._routing.promote(model, stable))
                return None, ""
            case Act.WITHDRAW:
                await self._bounded(self._routing.withdraw(model, candidate))
                return Event.WITHDRAWN, ""
            case _:
                raise AssertionError(f"{act} is not for the performer")

    async def _check(self, run: Run) -> tuple[Event, str]:
        await self._require_ready(run.model, run.candidate)
        found: list[Checked] = []
        for check in self._checks:
            found.append(await check(run.model, run.stable, run.candidate))
            if found[-1].refusal:
                self._keep(run, found)
                return Event.CHECK_FAILED, found[-1].refusal
        await self._bounded(self._routing.stage(run.model, run.candidate))
        # Not before: a stage that fails is tried again, and the checks with it.
        self._keep(run, found)
        return Event.CHECKED, f"version {run.candidate} is ready and routable"

    def _keep(self, run: Run, found: Sequence[Checked]) -> None:
        for checked in found:
            if checked.note:
                run.note(checked.note, self._clock.now(), checked.details)

    async def _require_ready(self, model: str, version: int) -> None:
        if not await self._bounded(self._serving.ready(model, version)):
            raise NotYet(f"version {version} of {model} is not ready")

    async def _unload(self, run: Run, version: int) -> None:
        """One attempt: a version that stays loaded costs memory, and must not keep the rollout from ending."""
        await self._clock.sleep(self._patience.drain)
        async with self._lock(run.model):
            if self._in_use(run, version):
                return
            try:
                await self._bounded(self._serving.unload(run.model, version))
            except Exception as error:
                log.warning("version %d of %s stays loaded: %s", version, run.model, _said(error))

    def _lock(self, model: str) -> asyncio.Lock:
        """Loads and unloads of one model one after the other: an unload must not overtake a new load."""
        return self._loading.setdefault(model, asyncio.Lock())

    async def _bounded(self, call: Awaitable[T]) -> T:
        async with asyncio.timeout(self._patience.call):
            return await call


def _refused(act: Act, error: Exception) -> Event | None:
    """What it means when trying again is pointless; None when it is not."""
    if act is Act.LOAD and isinstance(error, LoadRefused):
        return Event.LOAD_FAILED
    if act is Act.CHECK and isinstance(error, RouteRefused):
        return Event.CHECK_FAILED
    return None


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
