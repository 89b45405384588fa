"""The controller's one loop. Each turn: evidence -> judge -> machine -> journal -> lease -> slow acts in their tasks.

Run by `rollout.controller`. The lease is the safety of it all: it is renewed here and nowhere else, at the end of a
turn that got so far. A loop that is dead, frozen or cannot write its journal stops renewing, and the data plane
returns all traffic to stable by itself. A loop that was away for longer than the lease lives publishes nothing until
a fresh tick was judged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from rollout.fleet import Fleet
from rollout.journal import JournalError
from rollout.machine import EXPOSED, Act, Event, State
from rollout.performer import Check, Patience, Performer
from rollout.ports import Clock, Evidence, Routing, Serving, Tick
from rollout.run import Run
from rollout.settings import ControllerSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

_WITH_EVIDENCE = EXPOSED | {State.LOADING, State.CHECKING, State.SHADOW}
"""Read before the first step too, so that the first judged tick covers one turn only."""

_WITH_DEADLINE = frozenset({State.LOADING, State.CHECKING, State.SHADOW, State.GATE, State.STEP, State.BAKING})


class Loop:
    """Drives every run of the fleet. Nothing that fails in it ends it."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        serving: Serving,
        routing: Routing,
        evidence: Evidence,
        clock: Clock,
        settings: ControllerSettings,
        checks: tuple[Check, ...],
        patience: Patience,
    ) -> None:
        self._fleet = fleet
        self._serving = serving
        self._routing = routing
        self._evidence = evidence
        self._clock = clock
        self._settings = settings
        self._performer = Performer(
            serving=serving,
            routing=routing,
            clock=clock,
            checks=checks,
            patience=patience,
            in_use=fleet.in_use,
            report=self._came_of_it,
        )
        self._wake = asyncio.Event()
        self._turned = asyncio.Event()
        self._started: float | None = None
        self._blind = False
        self._reading = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def wake(self) -> None:
        """Publish weights and begin acts now: an operator's word does not wait for the next turn."""
        self._wake.set()

    async def turned(self) -> None:
        """Wait until something may have changed: the end of a turn, or of what a verb set off."""
        await self._turned.wait()

    async def run(self) -> None:
        """Ends by cancellation only."""
        try:
            while True:
                await self._guarded(self._turn)
                await self._until_next_turn()
        finally:
            self._cancel_tasks()

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
            self._fleet.working("controller")
        except JournalError as error:
            log.error("no lease is renewed until the journal works again: %s", error)
            self._fleet.resumed = False
            self._fleet.failing("journal", str(error))
        except Exception as error:
            log.exception("a controller turn failed; no lease was renewed in it")
            self._fleet.failing("controller", repr(error))
        self._turned.set()
        self._turned = asyncio.Event()

    async def _turn(self) -> None:
        now = self._clock.monotonic()
        away = 0.0 if self._started is None else now - self._started
        self._started = now
        if not self._fleet.resumed:
            self._cancel_tasks()
            self._fleet.resume()
        elif away > self._settings.lease_ttl_s:
            self._was_away(away)
        self._fleet.activate()
        await self._judge()
        self._watch_time()
        self._watch_readiness()
        await self._publish()
        self._begin_acts()

    async def _follow_up(self) -> None:
        """What a verb or a finished act set off, between two turns."""
        if self._fleet.resumed:
            self._fleet.activate()
            await self._publish()
            self._begin_acts()

    async def _until_next_turn(self) -> None:
        started = self._clock.monotonic() if self._started is None else self._started
        while (left := started + self._settings.turn_s - self._clock.monotonic()) > 0:
            timer = asyncio.ensure_future(self._clock.sleep(left))
            wake = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait({timer, wake}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                wake.cancel()
            if self._wake.is_set():
                self._wake.clear()
                await self._guarded(self._follow_up)

    def _was_away(self, away: float) -> None:
        """Frozen, suspended or starved: the leases have lapsed, and nobody judged what happened meanwhile."""
        for run in self._fleet:
            if run.judged or run.watched:
                run.look_anew()
                run.note(f"the controller was away for {away:.0f} s; the lease has lapsed", self._clock.now())

    async def _judge(self) -> None:
        self._blind = any(run.unseen for run in self._fleet)
        models = {run.model for run in self._fleet if run.progress.state in _WITH_EVIDENCE}
        if not models and not self._reading:
            return
        # Once more without any, so that the next rollout's first tick is not as long as the time between the two.
        self._reading = bool(models)
        ticks, trouble = await self._read(sorted(models))
        for run in self._fleet:
            if not run.judged:
                continue
            if run.baseline:
                run.watch_again(self._clock.now())
                continue
            missing = Tick(self._clock.now(), self._settings.turn_s, missing=trouble or "nothing was read of the model")
            try:
                self._fleet.take(run, ticks.get(run.model, missing))
                run.working("judge")
            except JournalError:
                raise
            except Exception as error:
                # One rollout's trouble takes its own weight only.
                log.exception("rollout %d cannot be judged", run.id)
                run.failing("judge", repr(error), self._clock.now())
                run.fresh = False

    async def _read(self, models: list[str]) -> tuple[dict[str, Tick], str]:
        try:
            async with asyncio.timeout(self._settings.read_timeout_s):
                return dict(await self._evidence.read(models)), ""
        except TimeoutError:
            return {}, f"the evidence source gave no answer in {self._settings.read_timeout_s:g} s"
        except Exception as error:
            log.exception("the evidence source failed")
            return {}, f"the evidence source failed: {error!r}"

    def _watch_time(self) -> None:
        now = self._clock.now()
        for run in self._fleet:
            progress, spec = run.progress, run.spec
            waited = progress.waited_s(now)
            if run.gate_is_open(now) and not (progress.frozen or progress.withheld):
                self._fleet.apply(run, Event.GATE_OPENED, "its time has passed" if run.gate else "the freeze is over")
            elif progress.frozen or (run.gate is not None and run.gate.seconds is not None):
                continue  # Deadlines do not run in a freeze; a gate with a time has that one.
            elif progress.state in _WITH_DEADLINE and not progress.overdue and waited >= spec.deadline_s:
                last = f"; last: {run.verdict.reason}" if run.verdict else ""
                reason = f"the deadline of {spec.deadline_s:g} s in {progress.state.value} passed{last}"
                self._fleet.apply(run, Event.DEADLINE, reason)
            elif progress.undoable and waited >= spec.rollback_window_s:
                for promotion in self._fleet.promotions_up_to(run):
                    self._fleet.apply(promotion, Event.WINDOW_CLOSED)

    def _watch_readiness(self) -> None:
        """Polls run beside the loop; their last answers count here."""
        for run in self._fleet:
            if not run.watched:
                continue
            poll = run.readiness.poll
            if poll is not None and poll.done():
                self._weigh_readiness(run, *poll.result())
                poll = None
            run.readiness.poll = poll or self._task(self._poll(run))

    def _weigh_readiness(self, run: Run, candidate: bool, stable: bool) -> None:
        watch, now = run.readiness, self._clock.now()
        watch.bad_polls = 0 if candidate else watch.bad_polls + 1
        watch.confirmed = candidate or bool(watch.confirmed)
        if candidate:
            watch.since = None
            if run.progress.withheld:
                self._fleet.apply(run, Event.READY, f"version {run.candidate} is ready again")
            return
        if watch.bad_polls < self._settings.unready_polls:
            return
        watch.since = now if watch.since is None else watch.since
        gone_s = now - watch.since
        if not run.progress.withheld:
            self._fleet.apply(run, Event.NOT_READY, f"version {run.candidate} is not ready")
        elif stable and gone_s >= run.spec.unready_grace_s:
            reason = f"version {run.candidate} was not ready for {gone_s:.0f} s, stable was"
            self._fleet.apply(run, Event.LOST, reason)

    async def _poll(self, run: Run) -> tuple[bool, bool]:
        try:
            async with asyncio.timeout(self._settings.ready_timeout_s):
                candidate = await self._serving.ready(run.model, run.candidate)
                return candidate, await self._serving.ready(run.model, run.stable)
        except Exception as error:
            log.warning("cannot ask whether version %d of %s is ready: %r", run.candidate, run.model, error)
            return False, False

    async def _publish(self) -> None:
        """Renew the lease with every weight in one call.

        Not at all in a turn that was frozen half-way, nor before anything was judged after a restart or a freeze: a
        lease that still lives is neither renewed blindly nor cut short.
        """
        if self._started is None or self._clock.monotonic() - self._started > self._settings.lease_ttl_s:
            return
        if self._blind or any(run.unseen for run in self._fleet):
            return
        weights = {run.model: run.lease_bp for run in self._fleet if run.lease_bp}
        mirrors = {run.model: run.mirror_bp for run in self._fleet if run.mirror_bp}
        try:
            async with asyncio.timeout(self._settings.lease_timeout_s):
                await self._routing.lease(weights, mirrors)
        except Exception as error:
            log.warning("the lease could not be renewed: %r", error)
            self._fleet.failing("lease", "no answer in time" if isinstance(error, TimeoutError) else str(error))
            for run in self._fleet:
                run.delivered.published(None)
        else:
            for run in self._fleet:
                run.delivered.published(weights.get(run.model, 0))
            self._fleet.working("lease")

    def _begin_acts(self) -> None:
        """The lease went first, so that a rollback is at weight 0 already when the routes change."""
        for run in self._fleet:
            if run.due:
                run.task = self._task(self._perform(run, run.task, run.due))
                run.due = ()
            self._fleet.drop_settled(run)

    async def _perform(self, run: Run, before: asyncio.Task[None] | None, acts: tuple[Act, ...]) -> None:
        if before is not None and not before.done():
            before.cancel()
            await asyncio.wait({before}, timeout=self._settings.lease_timeout_s)
        await self._performer.perform(run, acts)

    def _came_of_it(self, run: Run, event: Event, reason: str) -> None:
        """An act ended. What a cancelled controller or a run that was read anew began counts no more."""
        if run not in self._fleet:
            return
        try:
            self._fleet.apply(run, event, reason)
        except JournalError as error:
            log.error("rollout %d: %s", run.id, error)
        self._wake.set()

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
