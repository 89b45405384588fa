"""The judge of a shadow step: mirrored requests only, answered by both versions, seen by no user.

Same manner as `rollout.judge.judge`: ticks in, verdicts out, no clock, a state that goes on bit for bit. It advances
when enough pairs were compared and everything asked was shown, rolls back on evidence, and otherwise holds.
"""

from __future__ import annotations

import numpy as np

from rollout.judge import telemetry
from rollout.judge.paired import Paired, Pairs
from rollout.judge.paired_report import reports
from rollout.judge.panel import SUSPICION_LOG_E, due
from rollout.judge.settings import JudgeSettings
from rollout.judge.state import JudgeState
from rollout.judge.verdict import Decision, MetricReport, Verdict
from rollout.ports import Tick


class PairedJudge:
    """Judges one shadow step. Call `start_step` first, then `observe` with every tick.

    Raises ValueError when `state` was written under other settings.
    """

    def __init__(self, settings: JudgeSettings, state: JudgeState | None = None):
        self._settings = settings
        self._last_at: float | None = None
        self._begin()
        if state is not None:
            parts = state.parts()
            self._paired.load(parts["paired"])
            self._judged_s = np.array([float(parts["judged_s"])])
            self._restarts = np.array([int(parts["restarts"])])
            self._last_at = None if parts["last_at"] is None else float(parts["last_at"])

    def _begin(self) -> None:
        self._paired = Paired(self._settings, 1)
        self._judged_s, self._restarts = np.zeros(1), np.zeros(1, dtype=np.int64)
        self._last_at = None

    def start_step(self, at: float) -> None:
        """The shadow step begins (anew) at `at`, seconds on the ticks' clock."""
        self._begin()
        self._last_at = at

    def observe(self, tick: Tick) -> Verdict:
        """Judge one tick's pairs. Holds, unchanged, when the tick cannot be judged."""
        trouble = telemetry.pairs_fault(tick, self._last_at)
        if trouble or tick.paired is None:
            return Verdict(Decision.HOLD, trouble, reports(self._paired, self._settings))
        while (rows := due(self._restarts, self._judged_s)).size:
            self._restarts[rows] += 1
            self._paired.restart(rows)
            self._paired.restart_safe(rows)
        self._paired.observe(Pairs.of(tick.paired))
        self._judged_s = self._judged_s + tick.seconds
        self._last_at = tick.at
        return self._decide(reports(self._paired, self._settings))

    def _decide(self, found: tuple[MetricReport, ...]) -> Verdict:
        harmful = [report for report in found if report.harmful]
        if harmful:
            worst = max(harmful, key=lambda report: report.harm_log_e - report.harm_log_needed)
            return Verdict(Decision.ROLL_BACK, worst.harm_words, found)
        compared, needed = float(self._paired.compared[0]), self._settings.shadow_pairs
        if compared < needed:
            return Verdict(Decision.HOLD, f"{compared:,.0f} of at least {needed:,} mirrored pairs compared", found)
        for report in found:
            if report.suspicion_log_e > SUSPICION_LOG_E:
                return Verdict(Decision.HOLD, f"suspicion, {report.harm_words}", found)
        unsafe = [report.safe_words for report in found if not report.safe]
        if unsafe:
            return Verdict(Decision.HOLD, "; ".join(unsafe), found)
        return Verdict(Decision.ADVANCE, f"{compared:,.0f} mirrored pairs compared, no sign of harm", found)

    def state(self) -> JudgeState:
        return JudgeState.of(
            {
                "paired": self._paired.to_json(),
                "judged_s": float(self._judged_s[0]),
                "restarts": int(self._restarts[0]),
                "last_at": self._last_at,
            }
        )
