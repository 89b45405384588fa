"""Errors: does the canary fail more often than stable? Both sides of the question, second by second."""

from __future__ import annotations

import math

import numpy as np

from rollout.judge.counts import Arms
from rollout.judge.dispersion import OnlineDispersion
from rollout.judge.evalues import BoolArray, FloatArray, IntArray, rate_against, rate_ratio
from rollout.judge.margins import STAGES, MarginTable, Stage
from rollout.judge.metric import Evidence, Safety, Seen
from rollout.judge.pairing import Pairing
from rollout.judge.process import SAFE_START, EProcess
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import percent_words

_RATIOS: FloatArray = np.array([2.0, 3.0, 5.0, 8.0, 15.0, 40.0, 120.0, 500.0])
_LOG_RATIO_PRIOR: FloatArray = np.log(np.array([1.0, 2.0, 2.0, 1.5, 1.0, 1.0, 0.5, 0.5]) / 9.5)
"""Alternatives beyond the tolerance, weighted towards what is hard to see: gross failure needs few errors anyhow."""

FLOOR = 0.0005
"""While stable is free of errors every single canary error is infinitely worse; the canary must then also be shown to
fail more often than this."""
_FLOOR_RATES: FloatArray = np.geomspace(0.001, 0.9, 8)
_LOG_FLOOR_PRIOR: FloatArray = np.full(8, -math.log(8.0))

DECAY_PER_S = 0.97**0.1
"""Memory of stable's recent error rate: about five and a half minutes."""
_SHORT_DECAY_PER_S = 0.9
"""Memory of its rate right now: ten seconds."""
_CALM_RATIO, _CALM_ERRORS = 4.0, 2.0
"""Stable is calm while it fails at most this many times as often now as it did of late (and this much above)."""
_LARGEST_GAIN = 0.5
"""Most that one pair may add to the proof by ratio, in nats: the second in which a common burst begins shows two
versions that fail alike, for a reason that is not theirs."""
MATERIAL = 0.05
"""The proof by ratio is for a stable that fails at least this part of the margin by itself."""
RATIO_ASKED_S = {Stage.EARLY: 600.0, Stage.FINAL: 1200.0, Stage.BAKE: 0.0}
"""How long the proof by ratio is asked for where traffic is too low for it."""
_PRIOR_RATE, _PRIOR_REQUESTS = 0.001, 20.0
_PATIENCE = 3.0
_VARIANCE_DECAY_PER_S = 0.95**0.1


class ErrorEvidence(Evidence):
    arrays = ("totals", "step", "recent", "now", "recent_variance")
    parts = ("relative", "absolute", "safe", "safe_ratio", "dispersion", "pair")

    metric = Metric.ERRORS
    unit = "canary requests"

    def __init__(self, settings: JudgeSettings, runs: int):
        self._settings = settings
        self._margins = MarginTable(settings.margins.of("errors"), placeholder=0.5)
        self._alternatives = settings.error_tolerance * _RATIOS
        self.relative = EProcess(runs, (len(_RATIOS),), log_prior=_LOG_RATIO_PRIOR)
        self.absolute = EProcess(runs, (8,), log_prior=_LOG_FLOOR_PRIOR)
        self.safe = EProcess(runs, (self._margins.rows,), start=SAFE_START)
        self.safe_ratio = EProcess(runs, (self._margins.rows,), start=SAFE_START)
        # An owner's own margin says all that is to be shown; the ratio belongs to the judge's schedule.
        owned = [len(margin.rows) == 1 for margin in settings.margins.of("errors")]
        self._ratio_asked_s: FloatArray = np.array(
            [0.0 if own else RATIO_ASKED_S[stage] for stage, own in zip(STAGES, owned, strict=True)]
        )
        self.dispersion = OnlineDispersion(runs, 1)
        self.pair = Pairing(runs, 1)
        self.totals: FloatArray = np.zeros((runs, 4))
        self.step: FloatArray = np.zeros(runs)
        """Canary requests in this step."""
        self.recent: FloatArray = np.zeros((runs, 2))
        self.now: FloatArray = np.zeros((runs, 2))
        self.recent_variance: FloatArray = np.zeros(runs)
        self.by_caller = False

    def count_callers(self, by_caller: bool) -> None:
        """Whether what comes now is counted by caller, once a second, and no longer (or again) by request."""
        self.by_caller = by_caller
        self.unit = "canary caller seconds" if by_caller else "canary requests"

    def start_step(self, rows: IntArray) -> None:
        self.safe.begin(rows)
        self.safe_ratio.begin(rows)
        self.dispersion.start_step(rows)
        self.pair.clear(rows)
        self.step[rows] = 0.0

    def restart(self, rows: IntArray) -> None:
        self.relative.restart(rows)
        self.absolute.restart(rows)

    def restart_safe(self, rows: IntArray) -> None:
        self.safe.restart(rows)
        self.safe_ratio.restart(rows)

    @property
    def phi(self) -> FloatArray:
        by_caller = self._settings.caller_calibration if self.by_caller else None
        calibration = by_caller or self._settings.calibration
        return np.maximum(self.dispersion.phi[:, 0], calibration.phi(self.recent_variance))

    @property
    def _stable_rate(self) -> FloatArray:
        prior = _PRIOR_RATE * _PRIOR_REQUESTS
        return np.minimum((self.recent[:, 0] + prior) / (self.recent[:, 1] + _PRIOR_REQUESTS), 0.98)

    def _bounds(self, rows: IntArray, stage: IntArray) -> tuple[FloatArray, FloatArray]:
        """Rates (alternative, null) of the non-inferiority side, per rollout and margin.

        The alternative is not below a tenth of the margin: where stable has next to no errors, one error of the
        canary must not cost a hundred requests' worth of evidence.
        """
        rate, margins = self._stable_rate[rows, None], self._margins.values[stage[rows]]
        null = np.minimum(rate + margins, 0.99)
        return np.minimum(np.maximum(rate, 0.1 * margins), 0.999 * null), null

    def observe(self, canary: Arms, stable: Arms, seconds: FloatArray, stage: IntArray) -> None:
        calm_before = self._calm()
        self.now *= (_SHORT_DECAY_PER_S**seconds)[:, None]
        self.now += np.stack([stable.bad, stable.n], axis=1)
        calm = self._calm()
        pair = self.pair
        over, paired = pair.add(canary.bad[:, None], canary.n, stable.bad[:, None], stable.n, seconds)
        if paired.size:
            self._grow(paired, stage, calm_before, calm)
        pair.clear(over)
        self.totals += np.stack([canary.bad, canary.n, stable.bad, stable.n], axis=1)
        self.step += canary.n
        # A burst of errors must not raise for minutes what a canary is compared with.
        usual = np.minimum(stable.bad, _CALM_RATIO * self._stable_rate * stable.n)
        bad_stable = np.where(calm, stable.bad, usual)
        self.recent *= (DECAY_PER_S**seconds)[:, None]
        self.recent += np.stack([bad_stable, stable.n], axis=1)
        self.recent_variance *= _VARIANCE_DECAY_PER_S**seconds

    def _calm(self) -> BoolArray:
        bad, n = self.now.T
        result: BoolArray = bad <= _CALM_RATIO * self._stable_rate * n + _CALM_ERRORS
        return result

    def _grow(self, rows: IntArray, stage: IntArray, calm_before: BoolArray, calm: BoolArray) -> None:
        bad_canary, bad_stable = self.pair.canary[rows], self.pair.stable[rows]
        n_canary, n_stable = self.pair.n_canary[rows, None], self.pair.n_stable[rows, None]
        phi = self.phi[rows, None]
        some = np.flatnonzero(bad_canary[:, 0] + bad_stable[:, 0])
        if some.size:
            log_f = rate_ratio(
                bad_canary[some],
                n_canary[some],
                bad_stable[some],
                n_stable[some],
                self._settings.error_tolerance,
                self._alternatives,
            )
            self.relative.multiply(rows[some], log_f / phi[some])
        self.absolute.multiply(rows, rate_against(bad_canary, n_canary, _FLOOR_RATES, FLOOR) / phi)
        alternative, null = self._bounds(rows, stage)
        # Of the canary's counts alone, so that it may rest on what the same seconds show of stable.
        log_g = rate_against(bad_canary, n_canary, alternative, null) / phi
        self.safe.multiply(rows, np.where(calm[rows, None], log_g, 0.0))
        ratios = 1.0 + self._margins.values[stage[rows]] / self._stable_rate[rows, None]
        log_r = rate_ratio(bad_canary, n_canary, bad_stable, n_stable, ratios, 1.0) / phi
        self.safe_ratio.multiply(rows, np.where(calm_before[rows, None], np.minimum(log_r, _LARGEST_GAIN), 0.0))
        self.dispersion.observe(rows, bad_canary, n_canary[:, 0], bad_stable, n_stable[:, 0], self.pair.seconds[rows])
        total = n_canary + n_stable
        self.recent_variance[rows] += (n_canary * n_stable * (bad_canary + bad_stable) / total**2)[:, 0]

    @property
    def present(self) -> BoolArray:
        return np.ones(len(self.totals), dtype=bool)

    def log_harm(self) -> FloatArray:
        relative = self.relative.log_e()
        # The lesser of two e-processes is one: stable without a single error makes the relative test a hair trigger.
        return np.where(self.totals[:, 2] > 0, relative, np.minimum(relative, self.absolute.log_e()))

    def _row(self, stage: IntArray, judged_s: FloatArray) -> IntArray:
        """The margin in force. It relaxes with time for lack of traffic, never for lack of success: where the step
        has seen several times the requests that a healthy canary needs, the margin stays."""
        rows = np.arange(len(stage))
        alternative, null = self._bounds(rows, stage)
        rate = self._stable_rate[rows, None]
        growth = rate_against(rate, 1.0, alternative, null) / self.phi[:, None]
        enough = self.step[:, None] * np.maximum(growth, 0.0) >= _PATIENCE * -math.log(self._settings.beta)
        return self._margins.row_at(stage, judged_s, enough)

    def safety(self, stage: IntArray, judged_s: FloatArray) -> Safety:
        row = self._row(stage, judged_s)
        at = np.arange(len(row))
        # Where stable hardly fails, its rate cannot fall far below what is known of it: there the difference will do.
        material = self._stable_rate >= MATERIAL * self._margins.values[stage, row]
        asked = material & (judged_s < self._ratio_asked_s[stage])
        by_ratio = np.where(asked, self.safe_ratio.log_e()[at, row], math.inf)
        return Safety(
            log_e=np.minimum(self.safe.log_e()[at, row], by_ratio),
            margin=self._margins.values[stage, row],
            asked=self._margins.asked[stage, row],
        )

    def seen(self) -> Seen:
        bad_canary, n_canary, bad_stable, n_stable = self.totals[0].tolist()
        return Seen(
            bad_canary, n_canary, bad_stable, n_stable, "caller seconds failed" if self.by_caller else "requests failed"
        )

    def phi_now(self) -> float:
        return float(self.phi[0])

    def claim(self, stage: IntArray, judged_s: FloatArray, margin: float) -> str:
        return f"less than {percent_words(margin)} of requests failing beyond stable's"

    def growth(self, stage: IntArray, judged_s: FloatArray) -> float | None:
        first = np.zeros(1, dtype=np.int64)
        alternative, null = self._bounds(first, stage)
        row = self._row(stage, judged_s)[0]
        per_request = rate_against(self._stable_rate[:1], 1.0, alternative[0, row], null[0, row])
        return float(per_request[0]) / self.phi_now()
