"""What an owner may set of the judge; the rollout spec is turned into this."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from rollout.judge.dispersion import Calibration
from rollout.judge.margins import Margins


class Metric(StrEnum):
    ERRORS = "errors"
    LATENCY = "latency"
    ACCURACY = "accuracy"
    REWARD = "reward"
    DRIFT = "drift"
    PAIRED_ERRORS = "paired_errors"
    PAIRED_ACCURACY = "paired_accuracy"
    PAIRED_LATENCY = "paired_latency"
    AGREEMENT = "agreement"


class DriftAction(StrEnum):
    """What follows when the candidate's predicted classes are distributed far otherwise than stable's."""

    HOLD = "hold"
    """Wait, and say so: whether the change is wanted is for a person to know."""
    ROLL_BACK = "roll_back"
    IGNORE = "ignore"


ALPHA_SHARES = {Metric.ERRORS: 4.0, Metric.LATENCY: 3.0, Metric.ACCURACY: 2.0, Metric.REWARD: 1.0}
"""How the false-rollback budget is divided among the metrics that have data: by how often they decide."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Settings of one rollout's judge.

    alpha:                 chance of rolling back a version that is within tolerance, over the whole rollout (0.01)
    beta:                  chance of passing a step with harm at the margin, per metric (0.02)
    margins:               what must be shown to pass a step
    min_step_s:            seconds judged before a step may be passed (90: load-dependent bugs need time to show)
    warm_up_start_s:       seconds after the rollout began without latency evidence (180: caches, JIT, autoscaling)
    warm_up_step_s:        the same after each later step (90)
    guardrail:             whether gross failure rolls back within seconds, at any traffic (True)
    max_error_share:       absolute ceiling of the share of failed requests (None: no ceiling)
    max_p99_us:            absolute ceiling of the 99th percentile of latency, microseconds (None)
    stable_error_limit:    share of failed stable requests above which nothing advances (0.05): a common outage proves
                           nothing about the canary
    error_tolerance:       canary's error rate may be this many times stable's without being harm (1.3)
    latency_tolerance:     canary may be this much slower (0.05); at least three times the noise between two replicas
    wrong_tolerance:       canary's wrong answers may be this many times stable's (1.05)
    wrong_floor:           a wrong-answer margin is never finer than this many points (0.005): a ratio of next to
                           nothing would need millions of labels
    drift:                 what a large change of the predicted classes does (hold)
    share_tolerance:       the canary's odds of a request may be this much off the configured ones (0.25)
    max_disagreement:      share of mirrored answers in which the versions may differ, absolute (None: no limit)
    shadow_pairs:          least number of compared pairs before a shadow step is passed (500)
    required:              metrics that must have data before a step is passed; others count once they have some
    calibration:           over-dispersion of errors found in history (none)
    caller_calibration:    the same where they are counted by caller (None: as by request)
    """

    alpha: float = 0.01
    beta: float = 0.02
    margins: Margins = field(default_factory=Margins)
    min_step_s: float = 90.0
    warm_up_start_s: float = 180.0
    warm_up_step_s: float = 90.0
    guardrail: bool = True
    max_error_share: float | None = None
    max_p99_us: float | None = None
    stable_error_limit: float = 0.05
    error_tolerance: float = 1.3
    latency_tolerance: float = 0.05
    wrong_tolerance: float = 1.05
    wrong_floor: float = 0.005
    drift: DriftAction = DriftAction.HOLD
    share_tolerance: float = 0.25
    max_disagreement: float | None = None
    shadow_pairs: int = 500
    required: frozenset[Metric] = frozenset()
    calibration: Calibration = field(default_factory=Calibration)
    caller_calibration: Calibration | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "stable_error_limit"):
            _inside(name, getattr(self, name), 0.0, 1.0)
        if self.max_error_share is not None:
            _inside("max_error_share", self.max_error_share, 0.0, 1.0)
        if self.max_p99_us is not None:
            _inside("max_p99_us", self.max_p99_us, 0.0, math.inf)
        for name in ("error_tolerance", "wrong_tolerance"):
            _inside(name, getattr(self, name), 1.0, math.inf)
        if self.max_disagreement is not None:
            _inside("max_disagreement", self.max_disagreement, 0.0, 1.0)
        _inside("share_tolerance", self.share_tolerance, 0.0, 100.0)
        if self.shadow_pairs < 1:
            raise ValueError(f"judge.shadow_pairs: expected a number of at least 1, received {self.shadow_pairs}")
        _inside("latency_tolerance", self.latency_tolerance, 0.0, 100.0)
        for name in ("min_step_s", "warm_up_start_s", "warm_up_step_s", "wrong_floor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"judge.{name}: expected a number of at least 0, received {value}")


def _inside(name: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ValueError(f"judge.{name}: expected a number between {low:g} and {high:g}, received {value}")
