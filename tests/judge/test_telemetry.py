"""Broken, missing or odd telemetry holds with a reason and leaves no trace in what the judge remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rollout.judge import Decision, Judge, JudgeSettings, Stage
from rollout.ports import ArmCounts, PairedCounts, Tick
from tests.judge.traffic import CANARY, EDGES_US, STABLE, Arm, ticks, with_arm

QUICK = JudgeSettings(min_step_s=0.0, warm_up_start_s=0.0)
LATENCY_LENGTH = len(EDGES_US) + 1


def latency(*counts: object) -> tuple[object, ...]:
    return (*counts, *([0] * (LATENCY_LENGTH - len(counts))))


FAULTS: dict[str, tuple[Callable[[Tick], Tick], str]] = {
    "missing": (lambda t: replace(t, missing="GET /stats: connection refused"), "connection refused"),
    "missing, no arms": (lambda t: Tick(at=t.at, seconds=1.0, missing="timed out"), "timed out"),
    "no arms at all": (lambda t: replace(t, arms={}), "neither version"),
    "only a third version": (lambda t: replace(t, arms={9: ArmCounts(ok=5)}), "neither version"),
    "time is NaN": (lambda t: replace(t, at=math.nan), "time is nan"),
    "time is infinite": (lambda t: replace(t, at=math.inf), "time is inf"),
    "duplicate": (lambda t: replace(t, at=t.at - 1), "judged already"),
    "late": (lambda t: replace(t, at=t.at - 7), "older"),
    "duration is NaN": (lambda t: replace(t, seconds=math.nan), "covers nan"),
    "duration is zero": (lambda t: replace(t, seconds=0.0), "covers 0"),
    "duration is negative": (lambda t: replace(t, seconds=-1.0), "covers -1"),
    "one scrape after a gap": (lambda t: replace(t, seconds=600.0), "covers 600"),
    "canary ok negative": (lambda t: with_arm(t, CANARY, ok=-3), "ok = -3"),
    "stable bad negative": (lambda t: with_arm(t, STABLE, bad=-1), "bad = -1"),
    "stable ok NaN": (lambda t: with_arm(t, STABLE, ok=math.nan), "ok = nan"),
    "canary bad infinite": (lambda t: with_arm(t, CANARY, bad=math.inf), "bad = inf"),
    "canary bad a fraction": (lambda t: with_arm(t, CANARY, bad=0.5), "bad = 0.5"),
    "canary bad not there": (lambda t: with_arm(t, CANARY, bad=None), "bad = None"),
    "wrapped counter": (lambda t: with_arm(t, CANARY, bad=2**64 - 5), "bad = 1844"),
    "caller negative": (lambda t: with_arm(t, CANARY, caller=-2), "caller = -2"),
    "latency gone": (lambda t: with_arm(t, CANARY, ok=5, latency=()), "no latency"),
    "latency short": (lambda t: with_arm(t, CANARY, latency=(1, 2, 3)), "3 latency buckets"),
    "latency negative": (lambda t: with_arm(t, STABLE, latency=latency(4, -1)), "negative"),
    "latency NaN": (lambda t: with_arm(t, STABLE, latency=latency(math.nan)), "broken"),
    "latency none": (lambda t: with_arm(t, STABLE, latency=latency(None)), "broken"),
    "latency wrapped": (lambda t: with_arm(t, STABLE, latency=latency(2**63)), "too large"),
    "edges gone": (lambda t: replace(t, edges_us=()), "latency buckets"),
    "edges not rising": (lambda t: replace(t, edges_us=EDGES_US[::-1]), "rising"),
    "more wrong than labelled": (lambda t: with_arm(t, CANARY, labelled=2, wrong=3), "3 wrong of only 2"),
    "labels negative": (lambda t: with_arm(t, CANARY, labelled=-1), "labelled = -1"),
    "callers negative": (lambda t: with_arm(t, CANARY, callers=-4), "callers = -4"),
    "more failing callers than callers": (
        lambda t: with_arm(t, STABLE, callers=2, bad_callers=3),
        "3 failing of only 2",
    ),
    "predicted without classes": (lambda t: with_arm(t, CANARY, predicted=(3, 4)), "2 predicted classes, expected 0"),
    "predicted short": (
        lambda t: replace(with_arm(t, CANARY, predicted=(3,)), classes=("a", "b")),
        "1 predicted classes, expected 2",
    ),
    "predicted negative": (
        lambda t: replace(with_arm(t, CANARY, predicted=(3, -1)), classes=("a", "b")),
        "predicted classes that are negative",
    ),
    "mirrored pairs negative": (lambda t: replace(t, paired=PairedCounts(agreed=-1)), "agreed = -1"),
    "mirrored pairs NaN": (lambda t: replace(t, paired=PairedCounts(both_ok=math.nan)), "both_ok = nan"),  # type: ignore[arg-type]  # broken on purpose
    "reward NaN": (lambda t: with_arm(t, CANARY, reward_count=1, reward_sum=math.nan), "rewards of nan"),
    "reward without count": (lambda t: with_arm(t, CANARY, reward_sum=1.0), "rewards of 1.0"),
    "reward out of range": (lambda t: with_arm(t, CANARY, reward_count=2, reward_sum=9.0), "between 0 and 1"),
}


def nearly_decided(canary: Arm, decision: Decision) -> tuple[Judge, Tick]:
    """A judge whose next healthy tick would bring `decision`, and that tick."""
    judge = Judge(QUICK)
    judge.start_step(3000, 0.0, Stage.EARLY)
    for tick in ticks(rps=100, canary=canary, weight_bp=3000, seed=5, seconds=900):
        before = judge.state()
        if judge.observe(tick, STABLE, CANARY).decision is decision:
            return Judge(QUICK, before), tick
    raise AssertionError(f"{decision} was never reached")


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(
    ("canary", "decision"), [(Arm(), Decision.ADVANCE), (Arm(errors=0.2), Decision.ROLL_BACK)], ids=["good", "bad"]
)
def test_a_fault_holds_even_on_the_brink_of_a_decision(name: str, canary: Arm, decision: Decision) -> None:
    spoil, words = FAULTS[name]
    judge, tick = nearly_decided(canary, decision)
    before = judge.state()
    verdict = judge.observe(spoil(tick), STABLE, CANARY)
    assert verdict.decision is Decision.HOLD
    assert words in verdict.reason
    assert judge.state() == before
    assert judge.observe(tick, STABLE, CANARY).decision is decision


@pytest.mark.parametrize("absent", [STABLE, CANARY])
def test_a_tick_without_one_arm_never_advances_nor_rolls_back(absent: int) -> None:
    judge, tick = nearly_decided(Arm(), Decision.ADVANCE)
    arms = {version: arm for version, arm in tick.arms.items() if version != absent}
    verdict = judge.observe(replace(tick, arms=arms), STABLE, CANARY)
    assert verdict.decision is Decision.HOLD
    assert "no requests of" in verdict.reason


def test_new_histogram_buckets_hold_once_and_are_learnt() -> None:
    judge, tick = nearly_decided(Arm(), Decision.ADVANCE)
    other = tuple(edge * 2 for edge in EDGES_US)
    changed = replace(tick, edges_us=other)
    assert "other buckets" in judge.observe(changed, STABLE, CANARY).reason
    assert judge.observe(changed, STABLE, CANARY).decision is not Decision.ROLL_BACK


def test_no_telemetry_for_ever_holds_for_ever() -> None:
    judge = Judge(QUICK)
    judge.start_step(1000, 0.0, Stage.EARLY)
    verdicts = {judge.observe(Tick(at=at, seconds=1.0, missing="gone"), STABLE, CANARY).decision for at in range(500)}
    assert verdicts == {Decision.HOLD}


def test_numpy_integers_are_counts() -> None:
    judge = Judge(QUICK)
    judge.start_step(1000, 0.0, Stage.EARLY)
    tick = next(ticks(rps=100))
    assert "telemetry" not in judge.observe(with_arm(tick, CANARY, bad=np.int64(1)), STABLE, CANARY).reason
