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


class Counting:
    """A stretch while it is counted, in plain lists: one request at a time, they are several times quicker."""

    def __init__(self, at: float) -> None:
        self._at = at
        self._counts = [[0] * len(COUNTS) for _ in range(2 * WINDOWS)]
        self._latency = [[0] * (len(LIMITS_US) + 1) for _ in range(2)]

    def add(self, request: LoggedRequest, callers: int, failed: int, at: float) -> None:
        """Count one request, and the callers that it stands for (`FailingCallers.observe`)."""
        if request.outcome is Outcome.CALLER:
            return
        half = request.half
        counts = self._counts[2 * min(max(int((at - self._at) / WINDOW_S), 0), WINDOWS - 1) + half]
        counts[1] += 1
        counts[3] += callers
        if request.outcome is Outcome.BAD:
            counts[0] += 1
            counts[2] += failed
        if request.latency_us is not None:
            self._latency[half][bisect_right(LIMITS_US, request.latency_us)] += 1

    def stretch(self) -> Stretch:
        counts = np.array(self._counts, dtype=np.uint32).reshape(WINDOWS, 2, len(COUNTS))
        return Stretch(self._at, counts, np.array(self._latency, dtype=np.uint32))


def start_of(at: float) -> float:
    """When the stretch that holds this moment began."""
    return at // STRETCH_S * STRETCH_S
