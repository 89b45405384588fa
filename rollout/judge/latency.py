"""Latency: how often is the canary slower than stable's own quantiles, with the margin in the threshold?

"Canary above c times (1 + margin) as often as stable above c" holds for any distribution when the canary is slower by
exactly the margin, so the 2x2 e-value applies as it is. Only successful responses count; timeouts are errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rollout.judge.dispersion import OnlineDispersion
from rollout.judge.errors import requests_words
from rollout.judge.evalues import FloatArray, IntArray, log_sum_exp, two_by_two
from rollout.judge.histogram import EdgeTable, StableHistogram, counts_above, nearest_edges
from rollout.judge.margins import Margin
from rollout.judge.pairing import Pairing
from rollout.judge.process import SAFE_START, EProcess, log_uniform
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import MetricReport, evidence_words, percent_words, share_words

QUANTILES = (0.5, 0.9, 0.95, 0.99)
CATASTROPHE_QUANTILES = (0, 2)
"""Indices of the quantiles that are also watched, through warm-up, for being more than twice as slow."""
CATASTROPHE_MARGIN = 1.05**15 - 1.0

_SHIFTS: FloatArray = np.array([0.08, 0.15, 0.3, 0.5, 0.9, 1.5])
_ROW_QUANTILE: IntArray = np.array([0, 1, 2, 3, *CATASTROPHE_QUANTILES])
_LOG_ROW_PRIOR: FloatArray = np.log(np.array([0.2, 0.2, 0.2, 0.2, 0.1, 0.1]))
_LOG_TAIL: FloatArray = np.log(1.0 - np.array(QUANTILES))
_NEEDED: FloatArray = 10.0 / (1.0 - np.array(QUANTILES))
"""Responses of stable before a quantile of it means anything."""
_HIGHEST = 0.995

UNMEASURABLE_AFTER_S = 1500.0
"""When a margin that would be dropped in the end is dropped for a quantile that this traffic cannot measure: waiting
brings nothing there. An owner's own margin is never dropped."""


class LatencyEvidence:
    def __init__(self, settings: JudgeSettings):
        self._settings = settings
        self._harm = EProcess((6, len(_SHIFTS)), log_prior=log_uniform(len(_SHIFTS)))
        self._dispersion = OnlineDispersion(len(QUANTILES))
        self._totals: FloatArray = np.zeros((4, 6))
        self._p50, self._p99 = Margin.fixed(None), Margin.fixed(None)
        self._safe_quantile: IntArray = np.array([0, 3])
        self._safe = EProcess((2,), start=SAFE_START)
        self._table = EdgeTable((), tolerances=(), proofs=())
        self._histogram = StableHistogram(0)
        self._pair = Pairing(0)

    def start_step(self, p50: Margin, p99: Margin) -> None:
        self._p50, self._p99 = p50, p99
        self._safe_quantile = np.array([0] * len(p50.rows) + [3] * len(p99.rows))
        self._safe = EProcess((len(self._safe_quantile),), start=SAFE_START)
        self._dispersion.start_step()
        self._pair.clear()
        self._use_edges(self._table.edges_us)

    def _use_edges(self, edges_us: tuple[int, ...]) -> None:
        tolerance = self._settings.latency_tolerance
        safe = [*self._p50.values(placeholder=1.0).tolist(), *self._p99.values(placeholder=1.0).tolist()]
        tolerances = [tolerance] * 4 + [max(CATASTROPHE_MARGIN, tolerance)] * 2
        self._table = EdgeTable(edges_us, tolerances=tolerances, proofs=safe)

    @property
    def edges_us(self) -> tuple[int, ...]:
        """Edges of the histograms so far; empty before the first."""
        return self._table.edges_us

    def start_baseline(self, edges_us: tuple[int, ...]) -> None:
        """Forget stable's distribution: it was counted in other buckets. Evidence so far stays, it was sound."""
        self._use_edges(edges_us)
        self._histogram = StableHistogram(len(edges_us))
        self._pair = Pairing(len(edges_us) + 1)

    def restart(self) -> None:
        self._harm.restart()

    def restart_safe(self) -> None:
        self._safe.restart()

    @property
    def present(self) -> bool:
        return self._histogram.total > 0

    def observe(self, canary: tuple[int, ...], stable: tuple[int, ...], seconds: float, warm: bool) -> None:
        """Counts per bucket of one tick, empty for an arm without responses.

        While not `warm`, only the catastrophe rows learn: a canary with cold caches is slower for a while and fine.
        """
        if not self._table.edges_us:
            return
        canary_counts, stable_counts = (
            np.array(counts, dtype=np.float64) if counts else np.zeros(len(self._histogram.counts))
            for counts in (canary, stable)
        )
        pair = self._pair
        if pair.add(canary_counts, canary_counts.sum(), stable_counts, stable_counts.sum(), seconds):
            if pair.paired and self._histogram.total:
                self._grow(pair.canary, pair.n_canary, pair.stable, pair.n_stable, pair.seconds, warm)
            # Only now: the thresholds that a pair is judged by must not know it.
            self._histogram.add(pair.stable, pair.seconds)
            pair.clear()

    def _grow(
        self,
        canary: FloatArray,
        n_canary: float,
        stable: FloatArray,
        n_stable: float,
        seconds: float,
        warm: bool,
    ) -> None:
        # Thresholds and rates come from stable's past, this pair not included: predictable, as an e-value needs.
        share = self._histogram.exceedance()
        ready = self._histogram.total > _NEEDED
        edge = nearest_edges(share, _LOG_TAIL)
        above_canary, above_stable = counts_above(canary), counts_above(stable)
        quantile = np.concatenate([_ROW_QUANTILE, self._safe_quantile])
        base = edge[quantile]
        shifted = self._table.shifted[np.arange(len(quantile)), base]
        usable = ready[quantile] & (shifted >= 0)
        if not warm:
            usable[:4] = False
            usable[6:] = False
        bad_canary, bad_stable = above_canary[shifted], above_stable[base]
        theta = np.minimum(share[base], _HIGHEST)
        phi = np.maximum(self._dispersion.phi, 1.0)[quantile]

        theta_harm = theta[:6, None]
        odds = theta_harm / (1.0 - theta_harm) * np.exp(_SHIFTS)
        log_f = two_by_two(
            bad_canary[:6, None], n_canary, bad_stable[:6, None], n_stable, odds / (1.0 + odds), theta_harm
        )
        self._harm.multiply(np.where(usable[:6, None], log_f / phi[:6, None], 0.0))

        theta_safe = np.minimum(share[shifted[6:]], 0.999 * theta[6:])
        log_g = two_by_two(bad_canary[6:], n_canary, bad_stable[6:], n_stable, theta_safe, theta[6:])
        self._safe.multiply(np.where(usable[6:], log_g / phi[6:], 0.0))

        if warm:
            self._dispersion.observe(above_canary[edge], n_canary, above_stable[edge], n_stable, seconds)
        counts = np.array([bad_canary[:6], np.full(6, n_canary), bad_stable[:6], np.full(6, n_stable)])
        self._totals = self._totals + np.where(usable[:6], counts, 0.0)

    def _log_rows(self) -> FloatArray:
        return self._harm.log_e()

    def log_harm(self) -> float:
        # An average of e-processes is one: quantiles share the budget instead of splitting it.
        return float(log_sum_exp(self._log_rows() + _LOG_ROW_PRIOR))

    def report(self, judged_s: float, log_needed: float, log_safe_needed: float) -> MetricReport:
        rows = self._log_rows() + _LOG_ROW_PRIOR
        worst = int(np.argmax(rows))
        bad_c, n_c, bad_s, n_s = (float(part) for part in self._totals[:, worst])
        log_harm = float(log_sum_exp(rows))
        lagging, log_safe, margin, missing = self._lagging(judged_s, log_safe_needed)
        safe_words = ""
        if margin is not None and log_safe < log_safe_needed:
            safe_words = (
                f"latency: {requests_words(missing, 'canary responses')} to show a p{lagging} less than "
                f"{percent_words(margin)} above stable's"
            )
        quantile = QUANTILES[int(_ROW_QUANTILE[worst])]
        tolerance = CATASTROPHE_MARGIN if worst >= 4 else self._settings.latency_tolerance
        return MetricReport(
            metric=Metric.LATENCY,
            canary_bad=bad_c,
            canary_total=n_c,
            stable_bad=bad_s,
            stable_total=n_s,
            harm_log_e=log_harm,
            harm_log_needed=log_needed,
            suspicion_log_e=max(log_harm, float(self._log_rows().max())),
            safe_log_e=log_safe,
            safe_log_needed=log_safe_needed,
            margin=margin,
            phi=float(self._dispersion.phi[_ROW_QUANTILE[worst]]),
            missing_requests=missing,
            harm_words=(
                f"latency: {share_words(bad_c, n_c)} of the canary's responses came more than "
                f"{percent_words(tolerance)} later than stable's p{quantile * 100:.0f}, against "
                f"{share_words(bad_s, n_s)} of stable's beyond it; {evidence_words(log_harm, log_needed)}"
            ),
            safe_words=safe_words,
        )

    def _lagging(self, judged_s: float, log_needed: float) -> tuple[int, float, float | None, int | None]:
        """The quantile furthest from being shown: its name, evidence, margin in force, canary responses missing."""
        log_safe = self._safe.log_e()
        chosen: tuple[int, float, float | None, int | None] = (50, 0.0, None, 0)
        for name, margin, first in ((50, self._p50, 0), (99, self._p99, len(self._p50.rows))):
            value = margin.at(judged_s)
            if value is None or (margin.relents and judged_s >= UNMEASURABLE_AFTER_S and not self._measures(first)):
                continue
            row = first + margin.row_at(judged_s)
            evidence = float(log_safe[row])
            if chosen[2] is None or evidence < chosen[1]:
                missing = 0 if evidence >= log_needed else self._missing(row, log_needed - evidence)
                chosen = (name, evidence, value, missing)
        return chosen

    def _measures(self, row: int) -> bool:
        """Whether stable has enough responses of late for the quantile of a row of proof."""
        return bool(self._histogram.total > _NEEDED[self._safe_quantile[row]])

    def _missing(self, row: int, log_missing: float) -> int | None:
        n_c, n_s = float(self._totals[1].max()), float(self._totals[3].max())
        quantile = int(self._safe_quantile[row])
        if not n_c or not n_s or not self._measures(row):
            return None
        share = self._histogram.exceedance()
        base = int(nearest_edges(share, _LOG_TAIL)[quantile])
        shifted = int(self._table.shifted[6 + row, base])
        if shifted < 0:
            return None
        theta = min(float(share[base]), _HIGHEST)
        alternative = min(float(share[shifted]), 0.999 * theta)
        per_canary = n_s / n_c
        growth = float(two_by_two(alternative, 1.0, theta * per_canary, per_canary, alternative, theta))
        growth /= float(self._dispersion.phi[quantile])
        return math.ceil(log_missing / growth) if growth > 1e-6 else None

    def to_json(self) -> dict[str, Any]:
        return {
            "harm": self._harm.log_w.tolist(),
            "safe": self._safe.log_w.tolist(),
            "dispersion": self._dispersion.to_json(),
            "pair": self._pair.to_json(),
            "totals": self._totals.tolist(),
            "edges_us": list(self._table.edges_us),
            "histogram": self._histogram.to_json(),
        }

    def load(self, value: Mapping[str, Any]) -> None:
        self.start_baseline(tuple(int(edge) for edge in value["edges_us"]))
        self._harm.load(value["harm"])
        self._safe.load(value["safe"])
        self._dispersion.load(value["dispersion"])
        self._pair.load(value["pair"])
        self._totals = np.array(value["totals"], dtype=np.float64)
        self._histogram.load(value["histogram"])
