"""Five minutes of a version's traffic in two halves: what differs between them is noise, since they are one version.

The halves are of callers, so that whatever clusters by caller (a broken client, a heavy one, one with large requests)
is in one of them, as it would be on one of two versions. Filled by `rollout.evidence.history`, which keeps them; used
by `rollout.calibration`. No clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout.evidence.envoy_counts import latency_limits_us
from rollout.evidence.logged import LoggedRequest
from rollout.judge.history import WINDOW_S
from rollout.ports import Outcome

STRETCH_S = 300.0
WINDOWS = round(STRETCH_S / WINDOW_S)
COUNTS = ("failed requests", "requests", "failed callers", "callers")
"""The last axis of `Stretch.counts`."""

LIMITS_US = latency_limits_us()


@dataclass(frozen=True, slots=True)
class Stretch:
    """`at`: its start, epoch seconds. `counts`: (windows of 10 s, halves, `COUNTS`). `latency`: answers per half and
    bucket, whose exclusive upper limits are `LIMITS_US`."""

    at: float
    counts: npt.NDArray[np.uint32]
    latency: npt.NDArray[np.uint32]

    @classmethod
    def empty(cls, at: float) -> Stretch:
        return cls(
            at=at,
            counts=np.zeros((WINDOWS, 2, len(COUNTS)), dtype=np.uint32),
            latency=np.zeros((2, len(LIMITS_US) + 1), dtype=np.uint32),
        )

    def add(self, request: LoggedRequest, callers: int, failed: int, at: float) -> None:
        """Count one request, and the callers that it stands for (`FailingCallers.observe`)."""
        if request.outcome is Outcome.CALLER:
            return
        window = self.counts[min(max(int((at - self.at) / WINDOW_S), 0), WINDOWS - 1), request.half]
        window += np.array((request.outcome is Outcome.BAD, 1, failed, callers), dtype=np.uint32)
        if request.latency_us is not None:
            self.latency[request.half, bisect_right(LIMITS_US, request.latency_us)] += 1


def start_of(at: float) -> float:
    """When the stretch that holds this moment began."""
    return at // STRETCH_S * STRETCH_S
