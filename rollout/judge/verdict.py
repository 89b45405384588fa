"""What the judge says: the decision, why in words, and the numbers behind it. Journalled and shown as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from rollout.judge.settings import Metric


class Decision(StrEnum):
    ADVANCE = "advance"
    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class MetricReport:
    """One metric's numbers since the rollout began (harm) and in this step (safety).

    Counts are of judged requests, answers or labels; rewards count lost reward. `harm_log_e` >= `harm_log_needed`
    rolls back; `safe_log_e` >= `safe_log_needed` shows, at `margin`, what an advance needs of this metric. `margin` is
    None when nothing is asked of it now. `missing_requests` estimates how many more canary requests (labels, for
    accuracy) that takes if the canary is like stable; None when unknown, 0 when shown.
    """

    metric: Metric
    canary_bad: float
    canary_total: float
    stable_bad: float
    stable_total: float
    harm_log_e: float
    harm_log_needed: float
    suspicion_log_e: float
    """The strongest evidence of harm in any part of the metric (one quantile, say); it can only hold, not roll back."""
    safe_log_e: float
    safe_log_needed: float
    margin: float | None
    phi: float
    missing_requests: int | None
    harm_words: str
    """What was seen, for a person: "accuracy: 118 of 240 wrong (49 %) against 31 of 2,210 (1.4 %) of stable"."""
    safe_words: str
    """What is still to be shown, for a person; empty when nothing is."""

    @property
    def canary_rate(self) -> float:
        return self.canary_bad / self.canary_total if self.canary_total else 0.0

    @property
    def stable_rate(self) -> float:
        return self.stable_bad / self.stable_total if self.stable_total else 0.0

    @property
    def harmful(self) -> bool:
        return self.harm_log_e >= self.harm_log_needed

    @property
    def safe(self) -> bool:
        return self.margin is None or self.safe_log_e >= self.safe_log_needed

    def to_json(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in _REPORTED}
        return {**given, "canary_rate": self.canary_rate, "stable_rate": self.stable_rate, "safe": self.safe}


_REPORTED = tuple(field.name for field in fields(MetricReport))
"""Read as they are: `asdict` copies deeply, and this is done for every metric in every second."""


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    reason: str
    metrics: tuple[MetricReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "decision": self.decision.value,
            "reason": self.reason,
            "metrics": [report.to_json() for report in self.metrics],
        }


def share_words(bad: float, total: float) -> str:
    """ "31 of 2,210 (1.4 %)"."""
    count = f"{bad:,.0f}" if float(bad).is_integer() else f"{bad:,.1f}"
    return f"{count} of {total:,.0f} ({percent_words(bad / total if total else 0.0)})"


def percent_words(share: float) -> str:
    """A share as a percentage with two significant digits: "49 %", "1.4 %", "0.07 %"."""
    percent = 100.0 * share
    if percent >= 9.95 or percent == 0.0:
        return f"{percent:.0f} %"
    digits = max(0, 1 - math.floor(math.log10(abs(percent))))
    return f"{percent:.{min(digits, 6)}f} %"


def evidence_words(log_e: float, log_needed: float) -> str:
    """ "evidence 5.3e6 of 250 needed": how many times likelier the data are under harm than without."""
    exponent, needed = log_e / math.log(10.0), math.exp(log_needed)
    if exponent < 4:
        return f"evidence {math.exp(log_e):,.0f} of {needed:,.0f} needed"
    whole = math.floor(exponent)
    return f"evidence {10 ** (exponent - whole):.1f}e{whole} of {needed:,.0f} needed"
