"""Rules that decide on rollouts, behind one Protocol: Penstock here, others' in `rivals`. Many rollouts in step."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from loadtest.bench.rollout.traffic import EDGES_US, FloatArray, IntArray
from rollout.judge.counts import Arms
from rollout.judge.margins import Stage
from rollout.judge.panel import Findings, Panel
from rollout.judge.settings import JudgeSettings
from rollout.machine import Event, Happening, Progress, State, decide
from rollout.spec import RolloutSpec


class Rule(Protocol):
    """Rollouts under way. `see` takes the second that was served at `weight_bp`; `time` is its end, in seconds."""

    reason: list[str]

    @property
    def weight_bp(self) -> IntArray: ...

    @property
    def state(self) -> list[State]: ...

    def see(self, time: int, canary: Arms, stable: Arms) -> None: ...

    def keep(self, rows: IntArray) -> None: ...


class Penstock:
    """The state machine and the judge, as the controller's loop puts them together (see `rollout.run`).

    Loading and checking take no time here; everything after is theirs. tests/bench proves on whole rollouts that the
    real controller says the same in every tick.
    """

    def __init__(
        self, settings: JudgeSettings, runs: int, spec: RolloutSpec | None = None, *, check_share: bool = True
    ):
        self._check_share = check_share
        self._plan = (spec or RolloutSpec.default()).plan()
        self._panel = Panel(settings, runs)
        self._panel.latency.start_baseline(EDGES_US)
        self._progress: list[Progress] = []
        for _ in range(runs):
            progress = Progress()
            for event in (Event.ACTIVATED, Event.LOADED, Event.CHECKED):
                progress = decide(self._plan, progress, Happening(event, 0.0)).progress
            self._progress.append(progress)
        self.reason = [""] * runs
        self._panel.start_step(np.arange(runs), self._plan.weights_bp[0], self._stage(0))

    def _stage(self, step: int) -> Stage:
        return Stage.of(step, len(self._plan.weights_bp))

    @property
    def weight_bp(self) -> IntArray:
        return np.array([progress.lease_bp for progress in self._progress])

    @property
    def state(self) -> list[State]:
        return [progress.state for progress in self._progress]

    def keep(self, rows: IntArray) -> None:
        self._panel.keep(rows)
        self._progress = [self._progress[row] for row in rows]
        self.reason = [self.reason[row] for row in rows]

    def see(self, time: int, canary: Arms, stable: Arms) -> None:
        at: FloatArray = np.full(len(self._progress), float(time))
        share = self.weight_bp / 10_000 if self._check_share else None
        findings = self._panel.observe(at, np.ones(len(at)), canary, stable, share)
        for event, rows in ((Event.HARM, findings.roll_back), (Event.ADVANCE, findings.advance)):
            for row in np.flatnonzero(rows):
                self._happen(int(row), Happening(event, float(time)))
                if event is Event.HARM:
                    self.reason[row] = self._cause(findings, int(row))

    def _cause(self, findings: Findings, row: int) -> str:
        if findings.alarm[row]:
            return "guardrail"
        harmful = zip(self._panel.metrics, findings.harmful[:, row], strict=True)
        return ", ".join(evidence.metric.value for evidence, is_harmful in harmful if is_harmful)

    def _happen(self, row: int, happening: Happening) -> None:
        before = self._progress[row]
        new = decide(self._plan, before, happening).progress
        self._progress[row] = new
        if new.weight_bp and new.step != before.step:
            self._panel.start_step(np.array([row]), new.weight_bp, self._stage(new.step))
