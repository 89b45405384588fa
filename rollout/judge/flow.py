"""What a forecast knows: the traffic of a model (`Flow`), and how far a step is already (`Standing`).

Described by a person, estimated before a rollout, or read off a panel that judges one. Used by
`rollout.judge.forecast`, which turns both into time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rollout.judge.settings import JudgeSettings, Metric

if TYPE_CHECKING:
    from rollout.judge.panel import Panel

TAILS = (("p50", 0.5), ("p95", 0.05), ("p99", 0.01))
"""Quantiles of latency with a margin, and the share of responses beyond each."""

_YOUNG_S, _YOUNG_REQUESTS = 30.0, 50.0
"""A step younger than this tells less of the traffic than the rollout so far."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic of a model and what stable is like. Rates are shares.

    rps:        requests per second, of both versions together
    labels, rewards: feedback of each kind per answer
    units:      units of analysis per request: 1, or fewer where errors are counted by caller
    shifted:    where `exceedance` is empty: how many times rarer responses beyond "quantile x 1.2" are than beyond the
                quantile; 0.6 is usual for service times
    exceedance: stable's share of responses above each of `edges_us`
    """

    rps: float
    error_rate: float = 0.001
    labels: float = 0.0
    wrong_rate: float = 0.1
    rewards: float = 0.0
    lost_rate: float = 0.1
    shifted: float = 0.6
    phi: float = 1.0
    units: float = 1.0
    exceedance: tuple[float, ...] = ()
    edges_us: tuple[int, ...] = ()

    @classmethod
    def of(cls, panel: Panel, *, by_caller: bool) -> Flow:
        """What the first rollout of a panel has seen, of late where that says enough."""
        share = float(panel.weight_bp[0]) / 10_000
        seconds, units = float(panel.step_s[0]), float(panel.errors.step[0]) / share
        edges_us = panel.latency.edges_us
        requests = float(panel.latency.step[0].sum()) if by_caller and edges_us else units
        if seconds < _YOUNG_S or requests < _YOUNG_REQUESTS:
            totals = panel.errors.totals[0]
            seconds, units = float(panel.judged_s[0]), float(totals[1] + totals[3])
            requests = requests if by_caller and edges_us else units
        bad_stable, n_stable = panel.errors.recent[0].tolist()
        _, labels_canary, wrong, labels = panel.accuracy.totals[0].tolist()
        _, rewards_canary, lost, rewards = panel.reward.totals[0].tolist()
        answers = max(float(panel.errors.totals[0, 1] + panel.errors.totals[0, 3]), 1.0)
        known = edges_us and float(panel.latency.histogram.total[0]) > 0
        return cls(
            rps=requests / max(seconds, 1.0),
            error_rate=(bad_stable + 0.02) / (n_stable + 20.0),
            labels=(labels + labels_canary) / answers,
            wrong_rate=(wrong + 0.5) / (labels + 5.0),
            rewards=(rewards + rewards_canary) / answers,
            lost_rate=(lost + 0.5) / (rewards + 5.0),
            phi=panel.errors.phi_now(),
            units=units / requests if requests else 1.0,
            exceedance=tuple(panel.latency.histogram.exceedance(panel.stage[:1] * 0)[0].tolist()) if known else (),
            edges_us=edges_us if known else (),
        )

    def beyond(self, tail: float, margin: float) -> tuple[float, float]:
        """Share of stable's responses beyond its quantile (nearest edge), and beyond (1 + margin) times that."""
        if not self.exceedance:
            return tail, tail * self.shifted ** (math.log1p(margin) / math.log1p(0.2))
        base = min(range(len(self.edges_us)), key=lambda index: abs(math.log(self.exceedance[index] / tail)))
        # Between two edges in a straight line: a margin may be narrower than a bucket.
        later = float(np.interp(self.edges_us[base] * (1.0 + margin), self.edges_us, self.exceedance))
        return self.exceedance[base], later


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a step is. Log evidence is per margin of a schedule (`log_safe`, by the forecast's row) or metric."""

    judged_s: float = 0.0
    step_s: float = 0.0
    first: bool = True
    log_safe: Mapping[str, Sequence[float]] = field(default_factory=dict)
    log_harm: Mapping[Metric, float] = field(default_factory=dict)

    @classmethod
    def of(cls, panel: Panel, settings: JudgeSettings) -> Standing:
        """Of a panel's first rollout."""
        latency = iter(panel.latency.safe.log_e()[0].tolist())
        by_tail = {
            f"latency_{name}": [next(latency) for _ in range(max(len(m.rows) for m in settings.margins.of(name)))]
            for name, _ in TAILS
        }
        return cls(
            judged_s=float(panel.judged_s[0]),
            step_s=float(panel.step_s[0]),
            first=int(panel.steps[0]) == 1,
            log_safe={
                "errors": panel.errors.safe.log_e()[0].tolist(),
                "errors by ratio": panel.errors.safe_ratio.log_e()[0].tolist(),
                **by_tail,
                "accuracy": panel.accuracy.safe.log_e()[0].tolist(),
                "reward": panel.reward.safe.log_e()[0].tolist(),
            },
            log_harm={metric.metric: float(metric.log_harm()[0]) for metric in panel.metrics},
        )
