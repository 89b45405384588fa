"""Rules that decide on a rollout, behind one Protocol: Penstock's judge here, others beside it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from loadtest.bench.rollout.traffic import CANARY_VERSION, STABLE_VERSION
from rollout.judge import Decision, Judge, JudgeSettings
from rollout.ports import Tick

STEPS_BP = (1000, 3000)
BAKE_BP = 9500
BAKE_S = 300.0


class Phase(StrEnum):
    STEPPING = "stepping"
    BAKING = "baking"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"


class Rule(Protocol):
    """A rollout under way. `see` takes the tick that was served at `weight_bp`."""

    phase: Phase
    weight_bp: int
    reason: str

    def see(self, tick: Tick) -> None: ...


class JudgeRule:
    """The judge, with the least of a controller around it: steps of 10 and 30 %, then a bake at 95 %."""

    def __init__(self, settings: JudgeSettings):
        self._judge = Judge(settings)
        self._step = 0
        self._bake_from = 0.0
        self.phase, self.reason = Phase.STEPPING, ""
        self.weight_bp = STEPS_BP[0]
        self._judge.start_step(self.weight_bp, 0.0, len(STEPS_BP) == 1)

    def see(self, tick: Tick) -> None:
        verdict = self._judge.observe(tick, STABLE_VERSION, CANARY_VERSION)
        if verdict.decision is Decision.ROLL_BACK:
            self.phase, self.weight_bp, self.reason = Phase.ROLLED_BACK, 0, verdict.reason
        elif self.phase is Phase.BAKING:
            if tick.at - self._bake_from >= BAKE_S and verdict.decision is Decision.ADVANCE:
                self.phase, self.weight_bp, self.reason = Phase.PROMOTED, 10_000, verdict.reason
        elif verdict.decision is Decision.ADVANCE:
            self._step += 1
            if self._step < len(STEPS_BP):
                self.weight_bp = STEPS_BP[self._step]
            else:
                self.phase, self.weight_bp, self._bake_from = Phase.BAKING, BAKE_BP, tick.at
            self._judge.start_step(self.weight_bp, tick.at, self._step >= len(STEPS_BP) - 1)
