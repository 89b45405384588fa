"""The rollout controller: what the control plane, the CLI and the REST API use of this package.

Make one with the ports, await `run()` once, and call the verbs from the same event loop. A verb is written to the
journal before it returns and takes effect at once; it raises `rollout.errors` with a message for the person who
asked. Turns are `rollout.loop`'s, rules are `rollout.machine`'s, statistics are `rollout.judge`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from rollout.calibration import History
from rollout.dump import dump
from rollout.errors import IllegalVerb, NoRollout, NothingToRollOut, RolloutActive, UndecidableStep
from rollout.evidence.subject import Subject
from rollout.explain import Explanation, explain
from rollout.fleet import Fleet
from rollout.journal import Journal, Kind, RolloutRow
from rollout.judge.verdict import Decision as Ruling
from rollout.loop import Loop
from rollout.machine import FINAL, Event, State
from rollout.notifier import Notifier, Totals
from rollout.outlook import Outlook, PresentTraffic, outlook
from rollout.performer import Check, Patience
from rollout.ports import Clock, Evidence, Routing, Serving
from rollout.report import RolloutStatus
from rollout.run import Run
from rollout.settings import ControllerSettings
from rollout.spec import OnNewVersion, OnUndecidable, RolloutSpec


@dataclass(frozen=True, slots=True)
class Work:
    """Verdicts by model, journal records by kind and the size of their bodies, notices by what became of them."""

    verdicts: Mapping[tuple[str, Ruling], int]
    records: Mapping[Kind, int]
    record_bytes: int
    notices: Totals
    notices_waiting: int


class Controller:
    """All rollouts of one control plane.

    `checks` run on the loaded candidate before it is exposed (contract verdict, golden set). `on_change` hears the
    status after every change of state; what it raises is logged. `notifier` tells those whom a spec names (nobody).
    `history` is what rollouts are calibrated on as they begin (none), `traffic` what their forecast rests on (none).
    """

    def __init__(
        self,
        *,
        serving: Serving,
        routing: Routing,
        evidence: Evidence,
        journal: Journal,
        clock: Clock,
        settings: ControllerSettings | None = None,
        checks: tuple[Check, ...] = (),
        patience: Patience | None = None,
        on_change: Callable[[RolloutStatus], None] | None = None,
        notifier: Notifier | None = None,
        history: History | None = None,
        traffic: PresentTraffic | None = None,
    ) -> None:
        self._journal = journal
        self._traffic = traffic
        self._notifier = notifier
        self._fleet = Fleet(journal=journal, clock=clock, on_change=on_change, notifier=notifier, history=history)
        self._loop = Loop(
            self._fleet,
            serving=serving,
            routing=routing,
            evidence=evidence,
            clock=clock,
            settings=settings or ControllerSettings(),
            checks=checks,
            patience=patience or Patience(),
        )

    def resume_from_journal(self) -> None:
        """Take up unsettled rollouts where the journal ends; `run` does it too. Raises `JournalError`."""
        self._fleet.resume()

    async def run(self) -> None:
        """Turn by turn, until cancelled; weights then lapse with the lease."""
        await self._loop.run()

    async def turned(self) -> None:
        """Wait for the end of a turn of `run`, or of what a verb set off."""
        await self._loop.turned()

    async def start(
        self, model: str, candidate: int, stable: int, spec: RolloutSpec | None = None, *, by: str = ""
    ) -> RolloutStatus:
        """Begin moving `model` from `stable` to `candidate`, or wait in the queue behind the one under way.

        The status has the `outlook`: what may be expected of each step at the present traffic, with warnings.
        Raises `NothingToRollOut`, `RolloutActive`, `UndecidableStep`, `JournalError`.
        """
        if candidate == stable:
            raise NothingToRollOut(f"version {candidate} of {model} is stable already; there is nothing to roll out")
        spec = spec or RolloutSpec.default()
        expected = await self._foresee(model, stable, spec)
        self._resume_once()
        ahead = [*filter(None, [self._fleet.active(model)]), *self._fleet.waiting(model)]
        for run in ahead:
            if run.candidate == candidate:
                raise RolloutActive(
                    f"version {candidate} of {model} is being rolled out already: rollout {run.id} is "
                    f"{run.progress.state.value}"
                )
        if ahead:
            self._make_way(ahead, candidate, by)
        run = self._fleet.open(model=model, candidate=candidate, stable=stable, spec=spec, expected=expected)
        self._fleet.activate()
        self._loop.wake()
        return self._fleet.status(run)

    async def _foresee(self, model: str, stable: int, spec: RolloutSpec) -> Outlook | None:
        if self._traffic is None:
            return None
        expected = outlook(spec, await self._traffic.of(model, stable))
        if expected.warnings and spec.on_undecidable is OnUndecidable.REFUSE:
            raise UndecidableStep(
                f"{model}: its spec says on_undecidable: refuse, and at the present traffic ({expected.traffic}) "
                + "; ".join(expected.warnings)
            )
        return expected

    def _make_way(self, ahead: list[Run], candidate: int, by: str) -> None:
        """What a version arriving in mid-rollout does is for the rollout under way to say."""
        first = ahead[0]
        match first.spec.on_new_version:
            case OnNewVersion.QUEUE:
                return
            case OnNewVersion.REFUSE:
                raise RolloutActive(
                    f"rollout {first.id} of {first.model} to version {first.candidate} is {first.progress.state.value} "
                    "and its spec says on_new_version: refuse. Wait for it, promote it or abort it first"
                )
            case OnNewVersion.REPLACE:
                for run in ahead:
                    if run.progress.state is not State.ROLLING_BACK:
                        self._fleet.apply(run, Event.ABORT, f"replaced by version {candidate}", by=by)

    async def pause(self, model: str, *, by: str = "", reason: str = "") -> RolloutStatus:
        """Keep the weight where it is; harm still rolls back, nothing advances."""
        return self._say(model, Event.PAUSE, by, reason)

    async def resume(self, model: str, *, by: str = "", reason: str = "") -> RolloutStatus:
        """Go on after a pause."""
        return self._say(model, Event.RESUME, by, reason)

    async def promote(self, model: str, *, by: str = "", reason: str = "") -> RolloutStatus:
        """Make the candidate stable now, on the operator's word instead of evidence."""
        return self._say(model, Event.PROMOTE, by, reason)

    async def abort(self, model: str, *, by: str = "", reason: str = "") -> RolloutStatus:
        """Take the candidate out of traffic now."""
        return self._say(model, Event.ABORT, by, reason)

    async def undo(self, model: str, *, by: str = "", reason: str = "") -> RolloutStatus:
        """Move a promoted model back to its previous version, which is still loaded."""
        return self._say(model, Event.UNDO, by, reason)

    async def retry(self, model: str, *, by: str = "", reason: str = "") -> RolloutStatus:
        """Start a rolled back, aborted or failed rollout again, as a new rollout by the same spec."""
        self._resume_once()
        run = self._target(model, Event.RETRY)
        self._require(run, Event.RETRY, by, reason)
        decided = self._journal.last_decided(model)
        stable = run.stable
        if decided is not None and decided.id != run.id:
            stable = decided.candidate if decided.state is State.PROMOTED else decided.stable
        return await self.start(model, run.candidate, stable, run.spec, by=by)

    def _say(self, model: str, verb: Event, by: str, reason: str) -> RolloutStatus:
        self._resume_once()
        run = self._target(model, verb)
        self._require(run, verb, by, reason)
        self._loop.wake()
        return self._fleet.status(run)

    def _require(self, run: Run, verb: Event, by: str, reason: str) -> None:
        refusal = self._fleet.apply(run, verb, reason, by=by).refusal
        if refusal:
            raise IllegalVerb(f"rollout {run.id} of {run.model} to version {run.candidate}: {refusal}")

    def _target(self, model: str, verb: Event) -> Run:
        """The rollout a verb means: the one under way; without one, what waits, can be undone, or was decided last."""
        active = self._fleet.active(model)
        if active is not None:
            return active
        waiting = self._fleet.waiting(model)
        if verb is Event.ABORT and waiting:
            return waiting[0]
        undoable = self._fleet.undoable(model)
        if verb is Event.UNDO and undoable is not None:
            return undoable
        return self._latest(model)

    def _latest(self, model: str) -> Run:
        rows = self._journal.history(model, limit=1)
        if not rows:
            raise NoRollout(f"{model} has had no rollout yet; deploy a second version to start one")
        return self._of_row(rows[0])

    def _of_row(self, row: RolloutRow) -> Run:
        return next((run for run in self._fleet if run.id == row.id), None) or Run.resume(row, self._journal)

    def _resume_once(self) -> None:
        if not self._fleet.resumed:
            self._fleet.resume()

    def status(self, model: str) -> RolloutStatus:
        """The rollout under way, or else the last one. Raises `NoRollout`, `JournalError`."""
        active = self._fleet.active(model)
        return self._fleet.status(active or self._latest(model))

    def rollout(self, rollout_id: int) -> RolloutStatus:
        """One rollout by its id. Raises `NoRollout`, `JournalError`."""
        return self._fleet.status(self._of_row(self._row(rollout_id)))

    def active(self) -> list[RolloutStatus]:
        """Everything that is unsettled, oldest first."""
        return [self._fleet.status(run) for run in self._fleet]

    def history(self, model: str, limit: int = 100) -> list[RolloutStatus]:
        """A model's rollouts, newest first. Raises `JournalError`."""
        return [self._fleet.status(self._of_row(row)) for row in self._journal.history(model, limit)]

    def work(self) -> Work:
        """What this process has done so far, for its metrics."""
        return Work(
            verdicts=dict(self._fleet.judged),
            records=dict(self._journal.written),
            record_bytes=self._journal.written_bytes,
            notices=Totals() if self._notifier is None else self._notifier.totals,
            notices_waiting=0 if self._notifier is None else self._notifier.waiting,
        )

    def journal(self, rollout_id: int) -> Iterator[str]:
        """A rollout's whole journal as lines of JSON (`rollout.dump`). Raises `NoRollout`, `JournalError`."""
        row = self._row(rollout_id)
        return dump(row, self._journal.read(rollout_id))

    def subject(self, model: str) -> Subject | None:
        """What is rolled out of a model now and by which spec, for the sources of evidence; None when nothing is."""
        run = self._fleet.active(model)
        if run is None:
            return None
        return Subject(model, run.stable, run.candidate, run.spec, run.progress.exposed_at)

    def explain(self, rollout_id: int) -> Explanation:
        """What happened in a rollout and why, from the journal. Raises `NoRollout`, `JournalError`."""
        row = self._row(rollout_id)
        told = explain(row, self._journal.read(rollout_id))
        run = next((run for run in self._fleet if run.id == rollout_id), None)
        return told if run is None else replace(told, forecast=self._fleet.status(run).forecast)

    async def watch(self, rollout_id: int) -> AsyncIterator[RolloutStatus]:
        """The status now and after every turn, until the rollout is decided. Raises `NoRollout`, `JournalError`."""
        while True:
            status = self.rollout(rollout_id)
            yield status
            if status.state in FINAL:
                return
            await self.turned()

    def _row(self, rollout_id: int) -> RolloutRow:
        row = self._journal.rollout(rollout_id)
        if row is None:
            raise NoRollout(f"there is no rollout {rollout_id}")
        return row
