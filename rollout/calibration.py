"""How noisy a model's traffic is by itself, and what the judge of its next rollout makes of that.

Two halves of stable's own callers differ for no fault of any version; a candidate is held to no finer a standard.
Worked out once, when a rollout starts (`rollout.fleet`), from the history that `rollout.evidence.history` keeps, and
written to the journal, so that a restart and a replay judge by the same. Pure; the statistics are
`rollout.judge.history`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from rollout.evidence.halves import LIMITS_US, WINDOWS, Stretch
from rollout.judge.dispersion import Calibration
from rollout.judge.history import WINDOW_S, calibrate_errors, calibrate_latency
from rollout.judge.settings import JudgeSettings
from rollout.judge.verdict import percent_words

LEAST_S = 1800.0
"""Less history than this tells too little of swings that last minutes."""

LARGEST_TOLERANCE = 1.0
"""A latency tolerance above 100 % would leave nothing to judge: halves that differ more have no latency in common."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was found. `seconds` of history had requests, `requests` in all; `trouble`: why there is none to look at.

    errors, callers:   over-dispersion of failures, counted by request and by caller
    latency_tolerance: three times the noise of the halves' medians, as a share; 0 when nothing is known
    """

    seconds: float = 0.0
    requests: int = 0
    errors: Calibration = field(default_factory=Calibration)
    callers: Calibration = field(default_factory=Calibration)
    latency_tolerance: float = 0.0
    trouble: str = ""

    @property
    def enough(self) -> bool:
        return self.seconds >= LEAST_S

    def applied(self, settings: JudgeSettings) -> JudgeSettings:
        """The settings with this noise allowed for. Never stricter than what they said."""
        if not self.enough:
            return settings
        return replace(
            settings,
            calibration=self.errors,
            caller_calibration=self.callers,
            latency_tolerance=max(settings.latency_tolerance, self.latency_tolerance),
        )

    def words(self) -> str:
        if self.trouble:
            return f"not calibrated: {self.trouble}"
        seen = f"{self.seconds / 60:,.0f} min of stable's traffic ({self.requests:,} requests)"
        if not self.enough:
            return f"not calibrated: {seen} in the history, {LEAST_S / 60:.0f} min needed"
        return (
            f"calibrated on {seen}: between two halves of its callers, failed requests vary {self.errors.scale:.2f} "
            f"times as much as by chance, failing callers {self.callers.scale:.2f} times, and a median that is "
            f"{percent_words(self.latency_tolerance)} slower is no sign of harm yet"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibrated:
        parts = {name: Calibration(**value[name]) for name in ("errors", "callers")}
        return cls(**{**value, **parts})


class History(Protocol):
    """Whoever keeps what stable was like; asked once per rollout."""

    def of(self, line: str) -> Calibrated:
        """Of a routing line. Never raises: trouble is in the answer."""
        ...


def calibrate(stretches: Sequence[Stretch]) -> Calibrated:
    """From stretches of one routing line's stable versions, in order of time."""
    if not stretches:
        return Calibrated()
    # (bad and n by request, bad and n by caller), each per half and window.
    counts = np.concatenate([stretch.counts for stretch in stretches]).astype(np.float64)
    found = Calibrated(
        seconds=float(WINDOW_S * (counts[:, :, 1].sum(axis=1) > 0).sum()), requests=int(counts[:, :, 1].sum())
    )
    if not found.enough:
        return found
    assert len(counts) % WINDOWS == 0, "stretches are whole, so that windows of minutes never span a gap"
    by_request, by_caller = (
        calibrate_errors(*(counts[:, half, first + column] for half in (0, 1) for column in (0, 1))) for first in (0, 2)
    )
    latency = np.stack([stretch.latency for stretch in stretches]).astype(np.float64)
    tolerance = calibrate_latency(latency[:, 0], latency[:, 1], LIMITS_US)
    return replace(found, errors=by_request, callers=by_caller, latency_tolerance=min(tolerance, LARGEST_TOLERANCE))
