"""A shadow step that can show neither harm nor safety: it holds, says what it saw, and its deadline ends it.

The candidate is wrong a little more often, and shares three quarters of stable's errors, so that few pairs tell the two
apart.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

import pytest

from rollout.machine import DeadlineAction, State
from rollout.ports import PairedCounts
from rollout.report import RolloutStatus
from rollout.spec import RolloutSpec
from rollout.spec_parts import ShadowSpec
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import GOOD, QUICK, World, make_controller, running

PAIRS_A_TICK = 20
STABLE_WRONG, CANDIDATE_WRONG, SHARED = 0.08, 0.094, 0.75
SPEC = replace(QUICK, shadow=ShadowSpec(share_bp=1000, requests=500), deadline_s=120.0)


@dataclass
class AlikeWorld(World):
    """Every mirrored request is labelled, and the versions are wrong in exact shares of them."""

    pairs: int = 0

    def _pairs(self, model: str, requests: float, at: float) -> PairedCounts | None:
        if not self._mirrors.get(model):
            return None
        before, self.pairs = self.pairs, self.pairs + PAIRS_A_TICK
        both = SHARED * STABLE_WRONG
        candidate, stable = (
            int(self.pairs * p) - int(before * p) for p in (CANDIDATE_WRONG - both, STABLE_WRONG - both)
        )
        return PairedCounts(
            both_ok=PAIRS_A_TICK,
            agreed=PAIRS_A_TICK - candidate - stable,
            disagreed=candidate + stable,
            labelled=PAIRS_A_TICK,
            candidate_only_wrong=candidate,
            stable_only_wrong=stable,
        )


def at_the_deadline(spec: RolloutSpec) -> tuple[RolloutStatus, RolloutStatus, World]:
    """Just before it, and some seconds after."""

    async def test(clock: VirtualClock) -> tuple[RolloutStatus, RolloutStatus, World]:
        world = AlikeWorld(clock, {1: GOOD, 2: GOOD})
        world.stable["digits"] = 1
        world.loaded.add(("digits", 1))
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, spec)
            while (before := controller.status("digits")).deadline_left_s is None or before.deadline_left_s > 3.0:
                await clock.sleep(1.0)
            await clock.sleep(10.0)
            return before, controller.status("digits"), world

    return run_virtual(test)


@pytest.mark.parametrize(
    ("action", "state"),
    [
        (DeadlineAction.HOLD, State.SHADOW),
        (DeadlineAction.PAUSE, State.PAUSED),
        (DeadlineAction.ROLL_BACK, State.ROLLED_BACK),
    ],
)
def test_it_says_what_it_saw_and_the_deadline_does_as_the_owner_said(action: DeadlineAction, state: State) -> None:
    before, after, world = at_the_deadline(replace(SPEC, on_deadline=action))
    assert before.state is State.SHADOW
    assert before.waiting_for.startswith("suspicion, paired_accuracy: ")
    assert "labelled pairs were wrong on the candidate alone" in before.waiting_for
    assert "needed" in before.waiting_for
    assert before.forecast is not None
    assert any("paired_accuracy: 2.0 % more wrong answers" in row.words for row in before.forecast.rows)
    assert after.state is state
    assert after.overdue == (action is DeadlineAction.HOLD) or state is State.PAUSED
    if action is not DeadlineAction.HOLD:
        assert after.reason.startswith("the deadline of 120 s in shadow passed; last: suspicion, paired_accuracy: ")
    assert not any(weights for _, weights in world.weights_seen), "a user saw the candidate"
