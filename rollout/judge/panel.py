"""How the metrics become one decision, for many rollouts in step: a panel of judges.

`rollout.judge.judge` is a panel of one, with words; the simulation bench drives panels of hundreds. Both judge every
tick by `Panel.observe`; nothing is decided elsewhere. Statistics per metric live in their own files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rollout.judge.ceiling import Ceiling
from rollout.judge.counts import Arms
from rollout.judge.drift import Drift
from rollout.judge.errors import ErrorEvidence
from rollout.judge.evalues import BoolArray, FloatArray, IntArray
from rollout.judge.guardrail import Scan
from rollout.judge.label_rates import LabelRates
from rollout.judge.labels import AccuracyEvidence, RewardEvidence
from rollout.judge.latency import LatencyEvidence
from rollout.judge.margins import STAGES, Stage
from rollout.judge.metric import Evidence
from rollout.judge.process import RESTART_EVERY_S, RESTARTS
from rollout.judge.rows import Rows
from rollout.judge.settings import ALPHA_SHARES, DriftAction, JudgeSettings
from rollout.judge.share import SampleRatio

SUSPICION_LOG_E = math.log(1.5)
"""Evidence of harm above which a step is not passed even if everything asked was shown."""

_MIN_FREEZE_REQUESTS = 20
_BY_LABEL: BoolArray = np.array([False, False, True, True])
"""Which of a panel's metrics rest on feedback."""
_BAKE = STAGES.index(Stage.BAKE)


@dataclass(frozen=True, slots=True)
class Findings:
    """What one tick showed, per rollout; (metrics, rollouts) where it is per metric.

    Any of `alarm`, `harmful`, `over` (a ceiling) and `drift_harm` rolls back. Otherwise any of the others holds:
    `freezing` (a ceiling that stable is over), `frozen` (stable itself is failing), `off_share` (the data plane does
    not deliver the configured share), `lopsided` (labels come for one version far more often), `drifted`, `suspicious`,
    `silent` (no requests of one version), `missing` (a required metric has no data), `unsafe` (not shown yet),
    `undrifted` (no drift is not shown yet), `early` (the step is young).
    """

    alarm: BoolArray
    harmful: BoolArray
    over: BoolArray
    drift_harm: BoolArray
    freezing: BoolArray
    frozen: BoolArray
    off_share: BoolArray
    lopsided: BoolArray
    drifted: BoolArray
    suspicious: BoolArray
    silent: BoolArray
    missing: BoolArray
    unsafe: BoolArray
    undrifted: BoolArray
    early: BoolArray

    @property
    def roll_back(self) -> BoolArray:
        result: BoolArray = self.alarm | self.harmful.any(axis=0) | self.over.any(axis=0) | self.drift_harm
        return result

    @property
    def advance(self) -> BoolArray:
        several = self.freezing.any(axis=0) | self.suspicious.any(axis=0) | self.unsafe.any(axis=0)
        odd = self.frozen | self.off_share | self.lopsided | self.drifted | self.undrifted
        hold = several | odd | self.silent | self.missing.any(axis=0) | self.early
        result: BoolArray = ~self.roll_back & ~hold
        return result


class Panel(Rows):
    """Rollouts judged under the same settings."""

    arrays = ("stage", "weight_bp", "judged_s", "step_s", "restarts", "step_restarts", "steps")
    parts = ("errors", "latency", "accuracy", "reward", "scan", "share", "label_rates", "drift")

    def __init__(self, settings: JudgeSettings, runs: int):
        self.settings = settings
        self.errors = ErrorEvidence(settings, runs)
        self.latency = LatencyEvidence(settings, runs)
        self.accuracy = AccuracyEvidence(settings, runs)
        self.reward = RewardEvidence(settings, runs)
        self.scan = Scan(runs)
        self.share = SampleRatio(settings.share_tolerance, runs)
        self.label_rates = LabelRates(runs)
        self.drift = Drift(runs, 0)
        self.ceilings: dict[str, Ceiling] = {}
        if settings.max_error_share is not None:
            self.ceilings["errors"] = Ceiling(settings.max_error_share, runs)
        if settings.max_p99_us is not None:
            self.ceilings["p99"] = Ceiling(0.01, runs)
        self.stage: IntArray = np.zeros(runs, dtype=np.int64)
        self.weight_bp: IntArray = np.full(runs, -1, dtype=np.int64)
        self.judged_s: FloatArray = np.zeros(runs)
        self.step_s: FloatArray = np.zeros(runs)
        self.restarts: IntArray = np.zeros(runs, dtype=np.int64)
        self.step_restarts: IntArray = np.zeros(runs, dtype=np.int64)
        self.steps: IntArray = np.zeros(runs, dtype=np.int64)

    @property
    def metrics(self) -> tuple[Evidence, ...]:
        return (self.errors, self.latency, self.accuracy, self.reward)

    def start_step(self, rows: IntArray, weight_bp: int, stage: Stage) -> None:
        """A step begins in these rollouts. What must be shown is shown anew; evidence of harm goes on."""
        self.stage[rows] = STAGES.index(stage)
        self.weight_bp[rows] = weight_bp
        self.step_s[rows] = 0.0
        self.step_restarts[rows] = 0
        self.steps[rows] += 1
        for metric in self.metrics:
            metric.start_step(rows)
        for part in (self.scan, self.label_rates, self.drift):
            part.start_step(rows)

    def observe(
        self, at: FloatArray, seconds: FloatArray, canary: Arms, stable: Arms, weight: FloatArray | None = None
    ) -> Findings:
        """Judge one tick of every rollout. `weight`: the canary's configured share, 0 where there is none to check."""
        self._restart_reserves()
        settings = self.settings
        wait = np.where(self.steps == 1, settings.warm_up_start_s, settings.warm_up_step_s)
        self.latency.warm = self.step_s >= wait
        for metric in self.metrics:
            metric.observe(canary, stable, seconds, self.stage)
        self.scan.observe(at, np.stack([canary.bad, canary.n, stable.bad, stable.n], axis=1))
        if weight is not None:
            self.share.observe(canary.requests, stable.requests, weight, self.step_s)
        self.label_rates.observe(canary, stable, seconds, self.judged_s, self.step_s)
        if self.settings.drift is not DriftAction.IGNORE:
            self._watch_drift(canary, stable)
        if "errors" in self.ceilings:
            self.ceilings["errors"].observe(canary.bad, canary.n, stable.bad, stable.n, seconds)
        if "p99" in self.ceilings and self.latency.edges_us:
            slow = [self._slow(arms) for arms in (canary, stable)]
            self.ceilings["p99"].observe(*slow[0], *slow[1], seconds)
        self.judged_s += seconds
        self.step_s += seconds
        return self._findings(at, canary, stable)

    def _watch_drift(self, canary: Arms, stable: Arms) -> None:
        classes = canary.predicted.shape[1]
        if classes:
            self.expect_classes(classes)
            self.drift.observe(canary, stable)

    def expect_classes(self, classes: int) -> None:
        """Predictions come in this many classes from now on; what was counted in others cannot be compared."""
        if classes != self.drift.seen.shape[2]:
            self.drift = Drift(len(self.stage), classes)

    def _slow(self, arms: Arms) -> tuple[FloatArray, FloatArray]:
        """Responses in buckets wholly above the owner's p99 ceiling, and all."""
        limit, edges = self.settings.max_p99_us or math.inf, self.latency.edges_us
        first = next((index for index, edge in enumerate(edges) if edge >= limit), len(edges))
        return arms.latency[:, first + 1 :].sum(axis=1), arms.latency.sum(axis=1)

    def _restart_reserves(self) -> None:
        # On a schedule of judged time, known beforehand: the sum of all mass stays 1.
        while (rows := due(self.restarts, self.judged_s)).size:
            self.restarts[rows] += 1
            for metric in self.metrics:
                metric.restart(rows)
            for ceiling in self.ceilings.values():
                ceiling.restart(rows)
        while (rows := due(self.step_restarts, self.step_s)).size:
            self.step_restarts[rows] += 1
            for metric in self.metrics:
                metric.restart_safe(rows)
            self.drift.restart_safe(rows)

    def present(self) -> BoolArray:
        """(metrics, rollouts): which have data."""
        return np.stack([metric.present for metric in self.metrics])

    def log_needed(self, present: BoolArray) -> FloatArray:
        """Evidence of harm that rolls back, (metrics, rollouts): alpha is divided among the metrics that have data.

        A metric whose first data come in mid-rollout takes its part from then on; the chance of a false rollback over
        the whole rollout is then at most alpha plus that part.
        """
        shares = np.array([[ALPHA_SHARES[metric.metric]] for metric in self.metrics])
        whole = (shares * present).sum(axis=0)
        result: FloatArray = -np.log(self.settings.alpha * shares / np.maximum(whole, 1.0))
        return result

    @property
    def log_safe_needed(self) -> float:
        return -math.log(self.settings.beta)

    def _findings(self, at: FloatArray, canary: Arms, stable: Arms) -> Findings:
        present = self.present()
        harmful = present & (np.stack([m.log_harm() for m in self.metrics]) >= self.log_needed(present))
        suspicious = present & (np.stack([m.log_suspicion() for m in self.metrics]) > SUSPICION_LOG_E)
        safe = [m.safety(self.stage, self.judged_s).shown(self.log_safe_needed) for m in self.metrics]
        # Labels that come for one version only are no evidence of how good its answers are.
        labelled = self.label_rates.alike[None, :] | ~_BY_LABEL[:, None]
        harmful &= labelled
        drifted, action = self.drift.drifted, self.settings.drift
        forbidden = action is DriftAction.ROLL_BACK
        alarm = np.zeros(len(at), dtype=bool)
        failing = np.flatnonzero(canary.bad)
        if self.settings.guardrail and failing.size:
            alarm[failing] = self.scan.alarms(at, failing)
        stable_over = np.stack([np.zeros(len(at), dtype=bool), *(c.stable_over for c in self.ceilings.values())])
        canary_over = np.stack([np.zeros(len(at), dtype=bool), *self.canary_over()])
        required = [
            ~seen if metric.metric in self.settings.required else np.zeros_like(seen)
            for metric, seen in zip(self.metrics, present, strict=True)
        ]
        return Findings(
            alarm=alarm,
            harmful=harmful,
            over=canary_over & ~stable_over,
            drift_harm=drifted & forbidden,
            freezing=stable_over,
            frozen=self._frozen(at),
            off_share=self.share.off,
            lopsided=self.label_rates.lopsided,
            drifted=drifted,
            suspicious=suspicious,
            silent=(canary.requests == 0) | (stable.requests == 0),
            missing=np.stack(required),
            unsafe=present & ~np.stack(safe),
            undrifted=~self.drift.shown_alike(self.log_safe_needed) & forbidden & (self.stage != _BAKE),
            early=self.step_s < self.settings.min_step_s,
        )

    def canary_over(self) -> list[BoolArray]:
        """Per ceiling: whether the canary is shown to be over it."""
        return [ceiling.canary_over(-math.log(self.settings.alpha)) for ceiling in self.ceilings.values()]

    def _frozen(self, at: FloatArray) -> BoolArray:
        """Stable is failing: what a canary shows in a common outage proves nothing.

        A canary that is itself within the limit passes: a broken stable must not hold up its own fix.
        """
        bad_canary, n_canary, bad_stable, n_stable = self.scan.shares(at).T
        limit = self.settings.stable_error_limit
        failing = (n_stable >= _MIN_FREEZE_REQUESTS) & (bad_stable > limit * n_stable)
        well = (n_canary >= _MIN_FREEZE_REQUESTS) & (bad_canary <= limit * n_canary)
        result: BoolArray = failing & ~well
        return result


def due(done: IntArray, elapsed_s: FloatArray) -> IntArray:
    return np.flatnonzero(done < np.minimum(RESTARTS, elapsed_s // RESTART_EVERY_S))
