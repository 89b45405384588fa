"""Seeded traffic for judge tests: independent requests at stated rates, one tick per second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rollout.judge import Decision, Judge, JudgeSettings, Stage, Verdict
from rollout.ports import ArmCounts, Tick

STABLE, CANARY = 1, 2
EDGES_US = tuple(round(1000 * 1.05**index) for index in range(100))


@dataclass(frozen=True)
class Arm:
    """errors, wrong: shares; slow: factor on a log-normal latency with a median of 20 ms."""

    errors: float = 0.001
    slow: float = 1.0
    wrong: float = 0.08

    def shares(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        sample = rng.lognormal(np.log(20_000 * self.slow), 0.4, 200_000)
        return np.bincount(np.searchsorted(EDGES_US, sample), minlength=len(EDGES_US) + 1) / len(sample)


HEALTHY = Arm()


def ticks(
    *,
    rps: float,
    canary: Arm = HEALTHY,
    stable: Arm = HEALTHY,
    weight_bp: int = 1000,
    labels: float = 0.0,
    seed: int = 0,
    start: float = 0.0,
    seconds: int = 3600,
) -> Iterator[Tick]:
    rng = np.random.default_rng(seed)
    shares = {CANARY: canary.shares(rng), STABLE: stable.shares(rng)}
    for second in range(1, seconds + 1):
        n = rng.poisson(rps)
        n_canary = rng.binomial(n, weight_bp / 10_000)
        arms = {}
        for version, arm, count in ((STABLE, stable, n - n_canary), (CANARY, canary, n_canary)):
            bad = int(rng.binomial(count, arm.errors))
            ok = int(count) - bad
            labelled = int(rng.binomial(ok, labels))
            arms[version] = ArmCounts(
                ok=ok,
                bad=bad,
                latency=tuple(rng.multinomial(ok, shares[version]).tolist()),
                labelled=labelled,
                wrong=int(rng.binomial(labelled, arm.wrong)),
            )
        yield Tick(at=start + second, seconds=1.0, arms=arms, edges_us=EDGES_US)


def with_arm(tick: Tick, version: int, **changes: object) -> Tick:
    return replace(tick, arms={**tick.arms, version: replace(tick.arms[version], **changes)})  # type: ignore[arg-type]  # broken counts are the point


def judge_until_decided(
    settings: JudgeSettings,
    *,
    judge: Judge | None = None,
    stage: Stage = Stage.EARLY,
    weight_bp: int = 1000,
    **traffic: object,
) -> tuple[int, Verdict]:
    """Ticks until the first decision that is not HOLD (or the end), and that verdict."""
    judge = judge or Judge(settings)
    judge.start_step(weight_bp, 0.0, stage)
    seen = 0
    verdict = Verdict(Decision.HOLD, "no tick")
    for tick in ticks(weight_bp=weight_bp, **traffic):  # type: ignore[arg-type]  # passed through
        seen += 1
        verdict = judge.observe(tick, STABLE, CANARY)
        if verdict.decision is not Decision.HOLD:
            break
    return seen, verdict
