"""How many mirrored requests a candidate costs that is 2 points worse, simulated with the judge of the shadow step."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from rollout.judge import PairedJudge
from rollout.judge.verdict import Decision
from rollout.ports import PairedCounts, Tick
from rollout.spec import RolloutSpec
from rollout.spec_parts import ShadowSpec

_log = logging.getLogger(__name__)
"""`pytest --log-cli-level=INFO` shows the figures."""

_PER_TICK = 20
_SETTINGS = replace(RolloutSpec.default(), shadow=ShadowSpec(requests=100_000)).judge_settings()


def pairs_until_stopped(stable: float, candidate: float, *, shared: float, seed: int, most: int) -> int:
    """Pairs, all labelled, until the judge rolls back; `most` when it does not.

    `stable` and `candidate` are shares of wrong answers; `shared` is the part of stable's that are the candidate's too.
    """
    rng = np.random.default_rng(seed)
    both = shared * stable
    chances = [both, stable - both, candidate - both, 1.0 - stable - candidate + both]
    judge = PairedJudge(_SETTINGS)
    judge.start_step(0.0)
    for second in range(1, most // _PER_TICK + 1):
        _, stable_only, candidate_only, _ = (int(count) for count in rng.multinomial(_PER_TICK, chances))
        paired = PairedCounts(
            both_ok=_PER_TICK,
            agreed=_PER_TICK - stable_only - candidate_only,
            disagreed=stable_only + candidate_only,
            labelled=_PER_TICK,
            candidate_only_wrong=candidate_only,
            stable_only_wrong=stable_only,
        )
        if judge.observe(Tick(at=float(second), seconds=1.0, paired=paired)).decision is Decision.ROLL_BACK:
            return second * _PER_TICK
    return most


@pytest.mark.nightly
@pytest.mark.parametrize("shared", [0.75, 0.9, 1.0])
def test_a_candidate_2_points_worse_costs_at_most_5000_pairs(shared: float) -> None:
    """92 % against 90 % right, with errors as alike as those of a model and its next training."""
    needed = [pairs_until_stopped(0.08, 0.10, shared=shared, seed=seed, most=10_000) for seed in range(200)]
    median, p95 = np.quantile(needed, [0.5, 0.95])
    _log.info("shared %.2f: median %.0f pairs, p95 %.0f", shared, median, p95)
    assert p95 <= 5_000


@pytest.mark.parametrize("shared", [0.08, 0.75])
def test_a_candidate_as_good_is_not_stopped(shared: float) -> None:
    stopped = [pairs_until_stopped(0.08, 0.08, shared=shared, seed=seed, most=2_000) < 2_000 for seed in range(20)]
    assert not any(stopped)
