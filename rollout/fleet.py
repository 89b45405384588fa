"""The unsettled rollouts of one control plane, and the one way in which any of them changes.

Shared by `rollout.loop` (turns) and `rollout.controller` (operators' verbs): both change a rollout through `apply`,
which writes the journal before memory, collects the acts that fall due and tells who listens.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from rollout.calibration import History
from rollout.freeze import frozen_until
from rollout.journal import Journal, JournalError, RolloutRow
from rollout.judge.verdict import Decision as Ruling
from rollout.machine import Decision, Event, Happening, Progress, State, acts
from rollout.notices import notice, occasion_of
from rollout.notifier import Notifier
from rollout.outlook import Outlook
from rollout.ports import Clock, Tick
from rollout.report import RolloutStatus, status_of
from rollout.run import Run, Trouble
from rollout.spec import RolloutSpec

log = logging.getLogger(__name__)

_WAITING_OR_DONE = frozenset({State.PENDING, State.PROMOTED})


class Fleet:
    """Runs by rollout id, oldest first. `judged` counts verdicts by model.

    `resumed` is false until the journal was read, and again when it failed.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        on_change: Callable[[RolloutStatus], None] | None,
        notifier: Notifier | None,
        history: History | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._on_change = on_change
        self._notifier = notifier
        self._history = history
        self._runs: dict[int, Run] = {}
        self._troubles: dict[str, Trouble] = {}
        self.resumed = False
        self.judged: Counter[tuple[str, Ruling]] = Counter()

    def __iter__(self) -> Iterator[Run]:
        """A copy: a run may settle while one walks over them."""
        return iter(tuple(self._runs.values()))

    def __contains__(self, run: Run) -> bool:
        return self._runs.get(run.id) is run

    def resume(self) -> None:
        """Take up every unsettled rollout where its journal ends. Raises `JournalError`."""
        runs = [Run.resume(row, self._journal) for row in self._journal.active()]
        for run in runs:
            run.due = acts(run.progress)
        self._runs = {run.id: run for run in runs}
        self.resumed = True
        self.working("journal")

    def open(
        self, *, model: str, candidate: int, stable: int, spec: RolloutSpec, expected: Outlook | None = None
    ) -> Run:
        """A new rollout, pending, of which this is `expected`. Raises `JournalError`."""
        rollout_id = self._journal.open_rollout(
            model=model, candidate=candidate, stable=stable, spec=spec.to_json(), at=self._clock.now()
        )
        row = self._journal.rollout(rollout_id)
        assert row is not None
        run = self._runs[rollout_id] = Run(row, self._journal)
        if expected is not None:
            self._follow(run, lambda now: run.expect(expected, now))
        self._tell(run)
        return run

    def drop_settled(self, run: Run) -> None:
        if run.progress.settled:
            self._runs.pop(run.id, None)

    def apply(self, run: Run, event: Event, reason: str = "", *, by: str = "") -> Decision:
        """Let an event happen to a run. Raises `JournalError`; nothing has then changed but `resumed`."""
        return self._follow(run, lambda now: run.apply(Happening(event, now, reason, by)))

    def take(self, run: Run, tick: Tick) -> Decision:
        """Let a run judge a tick. Raises `JournalError` as `apply` does."""
        decision = self._follow(run, lambda now: run.take(tick, now))
        if run.verdict is not None:
            self.judged[run.model, run.verdict.decision] += 1
        return decision

    def _follow(self, run: Run, change: Callable[[float], Decision]) -> Decision:
        before = run.progress
        try:
            decision = change(self._clock.now())
        except JournalError as error:
            # Memory may be ahead of the journal now, as in a crash; the loop reads the journal again.
            self.resumed = False
            self.failing("journal", str(error))
            raise
        run.due = decision.acts or run.due
        if decision.progress != before:
            log.info("rollout %d, %s.%d: %s", run.id, run.model, run.candidate, run.progress.reason)
            self._tell(run)
            self._notify(run, before)
        return decision

    def active(self, model: str) -> Run | None:
        """The rollout of the model that is under way: begun and not decided."""
        return next((r for r in self if r.model == model and r.progress.state not in _WAITING_OR_DONE), None)

    def waiting(self, model: str) -> list[Run]:
        return [r for r in self if r.model == model and r.progress.state is State.PENDING]

    def undoable(self, model: str) -> Run | None:
        """The promotion of the model that was decided last and can still be undone."""
        promoted = [r for r in self if r.model == model and r.progress.undoable]
        return max(promoted, key=lambda r: r.progress.since, default=None)

    def promotions_up_to(self, run: Run) -> list[Run]:
        """The run and the older promotions of its model that are still undoable: what came before a promotion that
        can no longer be undone cannot be undone either."""
        return [
            r for r in self if r.model == run.model and r.progress.undoable and r.progress.since <= run.progress.since
        ]

    def activate(self) -> None:
        """Begin the oldest waiting rollout of each model that has none under way. Raises `JournalError`."""
        self._watch_freezes()
        for run in self:
            if run.progress.state is not State.PENDING or self.active(run.model) is not None:
                continue
            if run.progress.frozen or self.waiting(run.model)[0] is not run:
                continue
            decided = self._journal.last_decided(run.model)
            if decided is not None and decided.ended_at is not None and decided.ended_at >= run.created_at:
                run.stable = _stable_after(decided)
            if run.stable == run.candidate:
                self.apply(run, Event.ABORT, f"version {run.candidate} is stable already", by="the controller")
            else:
                self._begin(run)

    def _begin(self, run: Run) -> None:
        calibrated = self._history.of(run.model) if self._history is not None and run.spec.calibration else None
        reason = f"against version {run.stable}"
        self._follow(run, lambda now: run.begin(Happening(Event.ACTIVATED, now, reason), calibrated))

    def _watch_freezes(self) -> None:
        now = self._clock.now()
        for run in self:
            until = frozen_until(run.spec.freeze, now) if run.spec.freeze else None
            if until is not None and not run.progress.frozen:
                self.apply(run, Event.FROZEN, f"a freeze of its spec is in force until {_when(until)}")
            elif until is None and run.progress.frozen:
                self.apply(run, Event.THAWED, "the freeze is over")

    def in_use(self, run: Run, version: int) -> bool:
        """Whether the version is stable now or needed by another unsettled rollout. Raises `JournalError`."""
        decided = self._journal.last_decided(run.model)
        if decided is not None and version == _stable_after(decided):
            return True
        return any(version in (r.stable, r.candidate) for r in self if r.model == run.model and r is not run)

    def status(self, run: Run) -> RolloutStatus:
        return status_of(run, self._clock.now(), tuple(self._troubles.values()))

    def failing(self, where: str, message: str) -> None:
        known = self._troubles.get(where)
        since, attempts = (known.since, known.attempts) if known else (self._clock.now(), 0)
        self._troubles[where] = Trouble(where, message, since, attempts + 1)

    def working(self, where: str) -> None:
        self._troubles.pop(where, None)

    def _notify(self, run: Run, before: Progress) -> None:
        by_hand = run.gate is not None and run.gate.seconds is None
        occasion = occasion_of(before, run.progress, by_hand=by_hand)
        if self._notifier is None or occasion is None or not run.spec.notify:
            return
        try:
            self._notifier.tell(notice(occasion, self.status(run)), run.spec.notify)
        except Exception:
            log.exception("rollout %d: nobody is told of %s", run.id, occasion)

    def _tell(self, run: Run) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(self.status(run))
        except Exception:
            log.exception("the listener to rollout changes failed")


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _stable_after(row: RolloutRow) -> int:
    return row.candidate if row.state is State.PROMOTED else row.stable
