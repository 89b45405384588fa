"""What is judged of one rollout, apart from where it stands: its judges, the last verdict and the running totals.

`rollout.run` feeds it live and journals what comes of it; `rollout.replay` feeds it a journal and compares;
`rollout.rehearsal` feeds it traffic that never was. All three therefore judge by the same code. No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from json import dumps
from typing import Any

from rollout.calibration import Calibrated
from rollout.judge import Forecast, Judge, JudgeState, PairedJudge, Stage
from rollout.judge.telemetry import fault
from rollout.judge.verdict import Decision, Verdict
from rollout.machine import Plan, Progress, State
from rollout.ports import Tick
from rollout.records import Tally, verdict_from_json
from rollout.spec import RolloutSpec

JUDGED = frozenset({State.GATE, State.STEP, State.BAKING, State.PAUSED, State.PROMOTING})


class Judgement:
    """Of one rollout: in its shadow step by pairs of answers, from the first step on by what users got."""

    def __init__(self, spec: RolloutSpec, plan: Plan) -> None:
        self._settings = spec.judge_settings()
        self._min_bake_s = spec.min_bake_s
        self._plan = plan
        self._judge: Judge | None = None
        self._paired: PairedJudge | None = None
        self.verdict: Verdict | None = None
        self.tally = Tally()

    def calibrate(self, calibrated: Calibrated) -> None:
        """Allow for the noise of stable's own traffic. Call it before the candidate's first step."""
        self._settings = calibrated.applied(self._settings)

    def judges(self, progress: Progress) -> bool:
        """Whether ticks are for a judge now: the candidate is compared, and not decided."""
        if _in_shadow(progress):
            return self._paired is not None
        return self._judge is not None and progress.state in JUDGED

    def enter(self, before: Progress, new: Progress, at: float) -> None:
        """Tell the judge of a new step, or of one that begins anew because the candidate was gone."""
        came_back = before.withheld and not new.withheld
        if _in_shadow(new):
            if came_back or not _in_shadow(before):
                self._begin_shadow(at)
        elif new.weight_bp and (new.step != before.step or (came_back and new.state in JUDGED)):
            self._begin_step(new, at)

    def observe(
        self, tick: Tick, progress: Progress, *, stable: int, candidate: int, weight_bp: int | None = None
    ) -> Verdict:
        """Judge one tick. Call it while `judges`. `weight_bp` is what the data plane had all through the tick."""
        if _in_shadow(progress):
            assert self._paired is not None
            verdict = self._paired.observe(tick)
        else:
            assert self._judge is not None
            verdict = self._baked(self._judge.observe(tick, stable, candidate, weight_bp), tick, progress)
        self.verdict = verdict
        if sound(tick, stable, candidate):
            self.tally = self.tally.plus(tick)
        return verdict

    def _baked(self, verdict: Verdict, tick: Tick, progress: Progress) -> Verdict:
        """The owner's least time for the last step, beside the judge's own for every step."""
        baked_s = tick.at - progress.since - progress.frozen_s
        if verdict.decision is not Decision.ADVANCE or progress.state is not State.BAKING:
            return verdict
        if self._min_bake_s is None or baked_s >= self._min_bake_s:
            return verdict
        reason = f"the last step has run {baked_s:.0f} s of at least {self._min_bake_s:.0f}"
        return replace(verdict, decision=Decision.HOLD, reason=reason)

    def forecast(self, *, least_s: float, deadline_s: float) -> Forecast:
        """Of the step that is being judged by what users get; seconds from now, as in `Judge.forecast`."""
        assert self._judge is not None
        return self._judge.forecast(least_s=least_s, deadline_s=deadline_s)

    def snapshot(self) -> dict[str, Any]:
        """All of it as JSON, to go on from bit for bit."""
        return {
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "judge": None if self._judge is None else self._judge.state().to_json(),
            "paired": None if self._paired is None else self._paired.state().to_json(),
            "tally": self.tally.to_json(),
        }

    def restore(self, body: Mapping[str, Any], progress: Progress, at: float) -> None:
        """Take back what `snapshot` gave. A state of another version of the judge is judged anew from its step on."""
        if body["judge"] is not None:
            try:
                self._judge = Judge(self._settings, JudgeState.from_json(body["judge"]))
            except ValueError:
                self._judge = None
                self._begin_step(progress, at)
        if body.get("paired") is not None:
            try:
                self._paired = PairedJudge(self._settings, JudgeState.from_json(body["paired"]))
            except ValueError:
                self._begin_shadow(at)
        self.verdict = None if body["verdict"] is None else verdict_from_json(body["verdict"])
        self.tally = Tally.from_json(body["tally"])

    def _begin_shadow(self, at: float) -> None:
        self._paired = PairedJudge(self._settings)
        self._paired.start_step(at)

    def _begin_step(self, progress: Progress, at: float) -> None:
        if self._judge is None:
            self._judge = Judge(self._settings)
        # The shadow step is over; its last verdict is in the journal.
        self._paired = None
        self._judge.start_step(progress.weight_bp, at, Stage.of(progress.step, len(self._plan.weights_bp)))


def _in_shadow(progress: Progress) -> bool:
    state = progress.resume if progress.state is State.PAUSED else progress.state
    return state is State.SHADOW


def sound(tick: Tick, stable: int, candidate: int) -> bool:
    """Whether the tick tells anything, as the judge sees it."""
    return not fault(tick, stable, candidate, None, ())


def digest(verdict: Verdict) -> str:
    """The verdict in 16 characters, for a journal that keeps one per second."""
    return blake2b(dumps(verdict.to_json(), sort_keys=True).encode(), digest_size=8).hexdigest()
