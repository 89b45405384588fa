"""The forecast of the step in which a rollout is, from what was judged in it: status, metrics, `rollout explain`.

Used by `rollout.run`. Worked out on request and at most every few seconds, never in a tick: nothing that is decided
depends on it.
"""

from __future__ import annotations

import math

from rollout.judge import Flow, Forecast, Metric, forecast_pairs
from rollout.judge.paired_forecast import SHARED_ERRORS
from rollout.judgement import Judgement
from rollout.machine import Progress, State
from rollout.spec import RolloutSpec

EVERY_S = 5.0
_FORESEEN = frozenset({State.SHADOW, State.STEP, State.BAKING})


class Foresight:
    """Of one rollout."""

    def __init__(self, spec: RolloutSpec, judgement: Judgement) -> None:
        self._spec = spec
        self._judgement = judgement
        self._known: tuple[Progress, float, Forecast | None] | None = None

    def of(self, progress: Progress, now: float) -> Forecast | None:
        """None where no step is being judged. `now`: epoch seconds."""
        if self._known is None or self._known[0] != progress or not 0.0 <= now - self._known[1] < EVERY_S:
            self._known = progress, now, self._made(progress, now)
        return self._known[2]

    def _made(self, progress: Progress, now: float) -> Forecast | None:
        judged = progress.state in _FORESEEN and self._judgement.judges(progress) and not progress.withheld
        if not judged or self._judgement.verdict is None:
            return None
        waited_s = progress.waited_s(now)
        left_s = math.inf if progress.overdue else max(0.0, self._spec.deadline_s - waited_s)
        if progress.state is State.SHADOW:
            return self._of_pairs(waited_s, left_s)
        least_s = (self._spec.min_bake_s or 0.0) - waited_s if progress.state is State.BAKING else 0.0
        return self._judgement.forecast(least_s=least_s, deadline_s=left_s)

    def _of_pairs(self, waited_s: float, left_s: float) -> Forecast | None:
        """As fast as pairs have come so far, with the labels that came for them."""
        shadow, verdict = self._spec.shadow, self._judgement.verdict
        assert shadow is not None
        assert verdict is not None
        reports = {report.metric: report for report in verdict.metrics}
        errors, labels = reports.get(Metric.PAIRED_ERRORS), reports.get(Metric.PAIRED_ACCURACY)
        compared = errors.canary_total if errors else 0.0
        apart = labels.stable_rate if labels else 0.0
        flow = Flow(
            rps=compared / max(waited_s, 1.0) / (shadow.share_bp / 10_000),
            labels=labels.canary_total / compared if labels and compared else 0.0,
            wrong_rate=apart / (1.0 - SHARED_ERRORS),
        )
        return forecast_pairs(self._spec.judge_settings(), shadow.share_bp, flow, reports, deadline_s=left_s)
