"""What every metric of the judge is: evidence of harm, evidence of safety, and how both are put into words.

`rollout.judge.panel` asks for arrays over all its rollouts; `rollout.judge.judge`, which has one, for the report.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from rollout.judge.counts import Arms
from rollout.judge.evalues import BoolArray, FloatArray, IntArray
from rollout.judge.rows import Rows
from rollout.judge.settings import Metric
from rollout.judge.verdict import MetricReport, evidence_words, share_words


@dataclass(frozen=True, slots=True)
class Safety:
    """The non-inferiority side now, per rollout: evidence, the margin in force, and whether anything is asked."""

    log_e: FloatArray
    margin: FloatArray
    asked: BoolArray

    def shown(self, log_needed: float) -> BoolArray:
        result: BoolArray = ~self.asked | (self.log_e >= log_needed)
        return result


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts that evidence of harm rests on, of one rollout, and the noun for `bad`: "failed"."""

    bad_canary: float
    n_canary: float
    bad_stable: float
    n_stable: float
    what: str


class Evidence(Rows, ABC):
    """One metric of all rollouts of a panel. `stage` is the index in `STAGES` per rollout."""

    metric: ClassVar[Metric]
    unit: str
    """What `missing_requests` counts: "canary requests"."""

    @abstractmethod
    def start_step(self, rows: IntArray) -> None: ...

    @abstractmethod
    def restart(self, rows: IntArray) -> None:
        """Start a share of the reserve of harm evidence."""

    @abstractmethod
    def restart_safe(self, rows: IntArray) -> None:
        """The same for evidence of safety."""

    @abstractmethod
    def observe(self, canary: Arms, stable: Arms, seconds: FloatArray, stage: IntArray) -> None: ...

    @property
    @abstractmethod
    def present(self) -> BoolArray:
        """Whether the metric has data."""

    @abstractmethod
    def log_harm(self) -> FloatArray: ...

    def log_suspicion(self) -> FloatArray:
        """The strongest evidence of harm in any part of the metric; it can only hold, not roll back."""
        return self.log_harm()

    @abstractmethod
    def safety(self, stage: IntArray, judged_s: FloatArray) -> Safety: ...

    # Of the first rollout, for its report:

    @abstractmethod
    def seen(self) -> Seen: ...

    @abstractmethod
    def phi_now(self) -> float: ...

    @abstractmethod
    def claim(self, stage: IntArray, judged_s: FloatArray, margin: float) -> str:
        """What is shown at the margin now: "less than 1 % of requests failing beyond stable's"."""

    @abstractmethod
    def growth(self, stage: IntArray, judged_s: FloatArray) -> float | None:
        """Expected growth of the evidence of safety per unit, if the canary is like stable; None when unknown."""

    def report(self, stage: IntArray, judged_s: FloatArray, log_needed: float, log_safe_needed: float) -> MetricReport:
        safety, seen = self.safety(stage, judged_s), self.seen()
        asked, log_safe, margin = bool(safety.asked[0]), float(safety.log_e[0]), float(safety.margin[0])
        missing: int | None = 0
        safe_words = ""
        if asked and log_safe < log_safe_needed:
            growth = self.growth(stage, judged_s)
            missing = math.ceil((log_safe_needed - log_safe) / growth) if growth and growth > 1e-9 else None
            count = f"about {missing:,} more" if missing is not None else "an unknown number of further"
            safe_words = f"{self.metric.value}: {count} {self.unit} to show {self.claim(stage, judged_s, margin)}"
        log_harm = float(self.log_harm()[0])
        return MetricReport(
            metric=self.metric,
            canary_bad=seen.bad_canary,
            canary_total=seen.n_canary,
            stable_bad=seen.bad_stable,
            stable_total=seen.n_stable,
            harm_log_e=log_harm,
            harm_log_needed=log_needed,
            suspicion_log_e=float(self.log_suspicion()[0]),
            safe_log_e=log_safe,
            safe_log_needed=log_safe_needed,
            margin=margin if asked else None,
            phi=self.phi_now(),
            missing_requests=missing,
            harm_words=(
                f"{self.metric.value}: {share_words(seen.bad_canary, seen.n_canary)} of the canary's {seen.what} "
                f"against {share_words(seen.bad_stable, seen.n_stable)} of stable's; "
                f"{evidence_words(log_harm, log_needed)}"
            ),
            safe_words=safe_words,
        )
