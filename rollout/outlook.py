"""What may be expected of a rollout before it begins: every step's forecast, at the traffic that the model has.

Made when a rollout is started (`rollout.controller`), and by `penstock rollout plan`. The traffic is a measured one
(`PresentTraffic`), or a described one. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rollout.judge import Flow, Forecast, Stage, Standing, forecast, forecast_pairs
from rollout.judge.forecast import time_words
from rollout.spec import RolloutSpec


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a model's callers do now. `seconds`: how long was looked; `trouble`: why nothing is known."""

    seconds: float = 0.0
    requests: int = 0
    errors: int = 0
    labelled: int = 0
    wrong: int = 0
    rewards: int = 0
    lost_reward: float = 0.0
    trouble: str = ""

    @property
    def rps(self) -> float:
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def flow(self) -> Flow:
        answers = max(self.requests, 1)
        return Flow(
            rps=self.rps,
            error_rate=(self.errors + 0.02) / (self.requests + 20.0),
            labels=self.labelled / answers,
            wrong_rate=(self.wrong + 0.5) / (self.labelled + 5.0),
            rewards=self.rewards / answers,
            lost_rate=(self.lost_reward + 0.5) / (self.rewards + 5.0),
        )

    def words(self) -> str:
        if self.trouble:
            return f"the present traffic is not known: {self.trouble}"
        if not self.requests:
            return f"no traffic was seen in the last {self.seconds:,.0f} s"
        return f"{self.rps:,.3g} requests a second in the last {self.seconds:,.0f} s"


class PresentTraffic(Protocol):
    """Where the controller looks a model's traffic up when a rollout is started."""

    async def of(self, model: str, version: int) -> Traffic:
        """What callers get of one version now. Never raises: trouble is said in the answer."""
        ...


@dataclass(frozen=True, slots=True)
class StepForecast:
    """What the judge expects of one step at this traffic, before it begins. `step` counts from 1; 0: the shadow step.

    `weight_bp`: the share of requests that the candidate gets, or that is mirrored.
    """

    step: int
    weight_bp: int
    forecast: Forecast

    @property
    def name(self) -> str:
        return f"step {self.step}" if self.step else "shadow step"


@dataclass(frozen=True, slots=True)
class Outlook:
    """`pass_s`: expected seconds until a candidate like stable gets all traffic; None: never at this traffic.

    `warnings` are for whoever starts the rollout: steps that this traffic cannot decide in time, and what would help.
    """

    traffic: str
    rps: float | None
    pass_s: float | None
    steps: tuple[StepForecast, ...]
    warnings: tuple[str, ...]

    def words(self) -> str:
        """One sentence, for the journal."""
        if not self.steps:
            return self.traffic
        return f"{self.traffic}: a candidate like stable is expected to be promoted after {time_words(self.pass_s)}"


def outlook(spec: RolloutSpec, traffic: Traffic) -> Outlook:
    """Of a rollout by the spec that begins now."""
    if traffic.trouble or not traffic.requests:
        words = traffic.words()
        warning = f"{words}: how long the steps will take cannot be said, and without traffic none is ever passed"
        return Outlook(words, None if traffic.trouble else 0.0, None, (), (warning,))
    steps = forecasts(spec, traffic.flow)
    ways = [step.forecast.pass_s for step in steps]
    return Outlook(
        traffic=traffic.words(),
        rps=traffic.rps,
        pass_s=None if None in ways else sum(filter(None, ways)),
        steps=steps,
        warnings=tuple(f"{step.name}: {words}" for step in steps for words in step.forecast.warnings),
    )


def forecasts(spec: RolloutSpec, flow: Flow) -> tuple[StepForecast, ...]:
    """Every step in turn. A margin that relaxes does so with the time judged, so each begins where the last one is
    expected to end."""
    settings, weights = spec.judge_settings(), spec.weights_bp
    found: list[StepForecast] = []
    if spec.shadow is not None:
        pairs = forecast_pairs(settings, spec.shadow.share_bp, flow, {}, deadline_s=spec.deadline_s)
        found.append(StepForecast(0, spec.shadow.share_bp, pairs))
    judged_s = 0.0
    for index, weight in enumerate(weights):
        stage = Stage.of(index, len(weights))
        least_s = (spec.min_bake_s or 0.0) if stage is Stage.BAKE else 0.0
        standing = Standing(judged_s=judged_s, first=index == 0)
        step = forecast(settings, stage, weight, flow, standing, least_s=least_s, deadline_s=spec.deadline_s)
        found.append(StepForecast(index + 1, weight, step))
        judged_s += spec.deadline_s if step.pass_s is None else step.pass_s
    return tuple(found)
