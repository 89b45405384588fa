"""The demo's plot: which versions come, in what order, and what should become of each. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.demo.digits import FEW_SAMPLES, Version
from loadtest.operators import Rollout

MODEL = "digits"

DESCRIPTIONS = {
    Version.FIRST: f"logistic regression on {FEW_SAMPLES} images",
    Version.BETTER: "a forest of trees on all images",
    Version.SHUFFLED: "the same forest, trained on shuffled labels",
    Version.FAULTY: "as good as v2, but fails on dark images",
}


@dataclass(frozen=True, slots=True)
class Act:
    """One rollout of the demo. It ends as expected in `state`, for a reason that names one of `because` (if any)."""

    version: Version
    title: str
    state: str
    because: tuple[str, ...] = ()

    def came_out(self, rollout: Rollout) -> bool:
        reason = rollout.reason.lower()
        return rollout.state == self.state and (not self.because or any(word in reason for word in self.because))


ACTS = (
    Act(Version.BETTER, "A better model: should get more traffic step by step, and win", "promoted"),
    Act(
        Version.SHUFFLED,
        "A model that answers quickly and wrongly: only its labels can tell",
        "rolled_back",
        ("accuracy",),
    ),
    Act(
        Version.FAULTY,
        "A model that passes its tests and fails on some real inputs",
        "rolled_back",
        ("errors", "failed"),
    ),
)
