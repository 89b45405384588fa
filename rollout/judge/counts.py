"""One tick's counts of one version, for many rollouts at once: what the metrics are fed with.

Made by the judge from a single `ArmCounts`, by the simulation bench for thousands of rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rollout.judge.evalues import FloatArray
from rollout.ports import ArmCounts


@dataclass(frozen=True, slots=True)
class Arms:
    """Numbers per rollout, axis 0. `latency` is (rollouts, buckets), `predicted` (rollouts, classes).

    `bad` of `n`: failures in the unit of analysis, requests or (sticky traffic) callers. `requests`: always requests.
    `lost` of `rewards`: reward lost, each reward counting for at most 1.
    """

    bad: FloatArray
    n: FloatArray
    requests: FloatArray
    ok: FloatArray
    latency: FloatArray
    wrong: FloatArray
    labelled: FloatArray
    lost: FloatArray
    rewards: FloatArray
    predicted: FloatArray

    @classmethod
    def of(cls, arm: ArmCounts, *, by_caller: bool, buckets: int, classes: int) -> Arms:
        """One rollout's counts; `buckets` and `classes` say how many there are when the arm has none."""
        bad, n = (arm.bad_callers, arm.callers) if by_caller else (arm.bad, arm.requests)
        return cls(
            bad=np.array([bad], dtype=np.float64),
            n=np.array([n], dtype=np.float64),
            requests=np.array([arm.requests], dtype=np.float64),
            ok=np.array([arm.ok], dtype=np.float64),
            latency=_row(arm.latency, buckets),
            wrong=np.array([arm.wrong], dtype=np.float64),
            labelled=np.array([arm.labelled], dtype=np.float64),
            lost=np.array([max(arm.reward_count - arm.reward_sum, 0.0)], dtype=np.float64),
            rewards=np.array([arm.reward_count], dtype=np.float64),
            predicted=_row(arm.predicted, classes),
        )


def _row(counts: tuple[int, ...], size: int) -> FloatArray:
    return np.array([counts], dtype=np.float64) if counts else np.zeros((1, size))
