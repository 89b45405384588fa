"""Latency: how often is the canary slower than stable's own quantiles, with the margin in the threshold?

"Canary above c times (1 + margin) as often as stable above c" holds for any distribution when the canary is slower by
exactly the margin, so the 2x2 e-value applies as it is. Only successful responses count; timeouts are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rollout.judge.counts import Arms
from rollout.judge.dispersion import OnlineDispersion
from rollout.judge.evalues import BoolArray, FloatArray, IntArray, log_sum_exp, two_by_two
from rollout.judge.histogram import EdgeTable, StableHistogram, counts_above, nearest_edges
from rollout.judge.margins import STAGES, MarginTable
from rollout.judge.metric import Evidence, Safety, Seen
from rollout.judge.pairing import Pairing
from rollout.judge.process import SAFE_START, EProcess, log_uniform
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import percent_words

QUANTILES = (0.5, 0.9, 0.95, 0.975, 0.99)
CATASTROPHE_QUANTILES = (0, 2)
"""Indices of the quantiles that are also watched, through warm-up, for being more than twice as slow."""
CATASTROPHE_MARGIN = 1.05**15 - 1.0
_PROVEN = (("p50", 0), ("p95", 2), ("p99", 4))
"""Margins that ask for a proof, and the index of their quantile."""

_SHIFTS: FloatArray = np.array([0.08, 0.15, 0.3, 0.5, 0.9, 1.5])
_HARM_ROWS: IntArray = np.array([0, 1, 2, 3, 4, *CATASTROPHE_QUANTILES])
_LOG_ROW_PRIOR: FloatArray = np.log(np.array([0.16, 0.16, 0.16, 0.16, 0.16, 0.1, 0.1]))
_ROWS = len(_HARM_ROWS)
_LOG_TAIL: FloatArray = np.log(1.0 - np.array(QUANTILES))
_NEEDED: FloatArray = 10.0 / (1.0 - np.array(QUANTILES))
"""Responses of stable before a quantile of it means anything."""
_HIGHEST = 0.995

UNMEASURABLE_AFTER_S = 1500.0
"""When a margin that would be dropped in the end is dropped for a quantile that this traffic cannot measure: waiting
brings nothing there. An owner's own margin is never dropped."""


class LatencyEvidence(Evidence):
    arrays = ("totals", "step", "warm")
    parts = ("harm", "safe", "dispersion", "pair", "histogram")

    metric = Metric.LATENCY
    unit = "canary responses"

    def __init__(self, settings: JudgeSettings, runs: int):
        self._settings, self._runs = settings, runs
        self._margins = [MarginTable(settings.margins.of(name), placeholder=1.0) for name, _ in _PROVEN]
        self._first = np.cumsum([0, *(table.rows for table in self._margins)])
        self._safe_quantile: IntArray = np.repeat(
            [quantile for _, quantile in _PROVEN], [table.rows for table in self._margins]
        )
        self._quantile: IntArray = np.concatenate([_HARM_ROWS, self._safe_quantile])
        self.harm = EProcess(runs, (_ROWS, len(_SHIFTS)), log_prior=log_uniform(len(_SHIFTS)))
        self.safe = EProcess(runs, (len(self._safe_quantile),), start=SAFE_START)
        self.dispersion = OnlineDispersion(runs, len(QUANTILES))
        self.totals: FloatArray = np.zeros((runs, 4, _ROWS))
        self.step: FloatArray = np.zeros((runs, 2))
        self.warm: BoolArray = np.zeros(runs, dtype=bool)
        self.edges_us: tuple[int, ...] = ()
        """Edges of the histograms so far; empty before the first."""
        self._use_edges(())

    def keep(self, rows: IntArray) -> None:
        super().keep(rows)
        self._runs = len(rows)

    def _use_edges(self, edges_us: tuple[int, ...]) -> None:
        self.edges_us = edges_us
        tolerance = self._settings.latency_tolerance
        tolerances = [tolerance] * len(QUANTILES) + [max(CATASTROPHE_MARGIN, tolerance)] * 2
        proofs = [np.concatenate([table.values[index] for table in self._margins]) for index in range(len(STAGES))]
        tables = [EdgeTable(edges_us, tolerances=tolerances, proofs=row.tolist()).shifted for row in proofs]
        self._shifted: IntArray = np.stack(tables)
        self.histogram = StableHistogram(self._runs, len(edges_us))
        self.pair = Pairing(self._runs, len(edges_us) + 1)

    def start_baseline(self, edges_us: tuple[int, ...]) -> None:
        """Forget stable's distribution: it was counted in other buckets. Evidence so far stays, it was sound."""
        self._use_edges(edges_us)

    def start_step(self, rows: IntArray) -> None:
        self.safe.begin(rows)
        self.dispersion.start_step(rows)
        self.pair.clear(rows)
        self.step[rows] = 0.0

    def restart(self, rows: IntArray) -> None:
        self.harm.restart(rows)

    def restart_safe(self, rows: IntArray) -> None:
        self.safe.restart(rows)

    @property
    def present(self) -> BoolArray:
        return self.histogram.total > 0

    def observe(self, canary: Arms, stable: Arms, seconds: FloatArray, stage: IntArray) -> None:
        """While not `warm`, only the catastrophe rows learn: a canary with cold caches may be slower for a while."""
        if not self.edges_us:
            return
        pair, n_canary, n_stable = self.pair, canary.latency.sum(axis=1), stable.latency.sum(axis=1)
        self.step += np.stack([n_canary, n_stable], axis=1)
        over, paired = pair.add(canary.latency, n_canary, stable.latency, n_stable, seconds)
        ready = paired[self.histogram.total[paired] > 0]
        if ready.size:
            self._grow(ready, stage)
        # Only now: the thresholds that a pair is judged by must not know it.
        self.histogram.add(over, pair.stable[over], pair.seconds[over])
        pair.clear(over)

    def _grow(self, rows: IntArray, stage: IntArray) -> None:
        # Thresholds and rates come from stable's past, this pair not included: predictable, as an e-value needs.
        pair, quantile, warm = self.pair, self._quantile, self.warm[rows]
        n_canary, n_stable = pair.n_canary[rows, None], pair.n_stable[rows, None]
        share = self.histogram.exceedance(rows)
        ready = self.histogram.total[rows, None] > _NEEDED
        edge = nearest_edges(share, _LOG_TAIL)
        base = edge[:, quantile]
        shifted = self._shifted[stage[rows, None], np.arange(len(quantile)), base]
        usable = ready[:, quantile] & (shifted >= 0)
        usable[:, : len(QUANTILES)] &= warm[:, None]
        usable[:, _ROWS:] &= warm[:, None]
        bad_canary = counts_above(pair.canary[rows], np.concatenate([shifted, edge], axis=1))
        own_canary, bad_canary = bad_canary[:, len(quantile) :], bad_canary[:, : len(quantile)]
        own_stable = counts_above(pair.stable[rows], edge)
        bad_stable = own_stable[:, quantile]
        theta = np.minimum(np.take_along_axis(share, base, axis=1), _HIGHEST)
        phi = self.dispersion.phi[rows][:, quantile]

        odds = (theta / (1.0 - theta))[:, :_ROWS, None] * np.exp(_SHIFTS)
        log_f = two_by_two(
            bad_canary[:, :_ROWS, None],
            n_canary[:, :, None],
            bad_stable[:, :_ROWS, None],
            n_stable[:, :, None],
            odds / (1.0 + odds),
            theta[:, :_ROWS, None],
        )
        self.harm.multiply(rows, np.where(usable[:, :_ROWS, None], log_f / phi[:, :_ROWS, None], 0.0))

        theta_safe = np.minimum(np.take_along_axis(share, shifted[:, _ROWS:], axis=1), 0.999 * theta[:, _ROWS:])
        log_g = two_by_two(
            bad_canary[:, _ROWS:], n_canary, bad_stable[:, _ROWS:], n_stable, theta_safe, theta[:, _ROWS:]
        )
        self.safe.multiply(rows, np.where(usable[:, _ROWS:], log_g / phi[:, _ROWS:], 0.0))

        hot = np.flatnonzero(warm)
        if hot.size:
            self.dispersion.observe(
                rows[hot], own_canary[hot], n_canary[hot, 0], own_stable[hot], n_stable[hot, 0], pair.seconds[rows[hot]]
            )
        ones = np.ones((1, _ROWS))
        counts = np.stack([bad_canary[:, :_ROWS], n_canary * ones, bad_stable[:, :_ROWS], n_stable * ones], axis=1)
        self.totals[rows] += np.where(usable[:, None, :_ROWS], counts, 0.0)

    def log_harm(self) -> FloatArray:
        # An average of e-processes is one: quantiles share the budget instead of splitting it.
        return log_sum_exp(self.harm.log_e() + _LOG_ROW_PRIOR)

    def log_suspicion(self) -> FloatArray:
        rows = self.harm.log_e()
        return np.maximum(log_sum_exp(rows + _LOG_ROW_PRIOR), rows.max(axis=1))

    def safety(self, stage: IntArray, judged_s: FloatArray) -> Safety:
        _, safety = self._lagging(stage, judged_s)
        return safety

    def _lagging(self, stage: IntArray, judged_s: FloatArray) -> tuple[IntArray, Safety]:
        """Row of proof furthest from being shown, per rollout, and what it shows."""
        log_safe, at, total = self.safe.log_e(), np.arange(len(stage)), self.histogram.total
        lagging = np.zeros(len(stage), dtype=np.int64)
        margin, least, any_asked = np.zeros(len(stage)), np.full(len(stage), np.inf), np.zeros(len(stage), dtype=bool)
        for (_, quantile), table, first in zip(_PROVEN, self._margins, self._first, strict=False):
            row = table.row_at(stage, judged_s)
            hopeless = table.relents[stage] & (judged_s >= UNMEASURABLE_AFTER_S) & (total <= _NEEDED[quantile])
            asked = table.asked[stage, row] & ~hopeless
            evidence = np.where(asked, log_safe[at, first + row], np.inf)
            worse = evidence < least
            least = np.where(worse, evidence, least)
            lagging = np.where(worse, first + row, lagging)
            margin = np.where(worse, table.values[stage, row], margin)
            any_asked |= asked
        return lagging, Safety(log_e=np.where(any_asked, least, 0.0), margin=margin, asked=any_asked)

    def _worst(self) -> int:
        return int(np.argmax(self.harm.log_e()[0] + _LOG_ROW_PRIOR))

    def seen(self) -> Seen:
        worst = self._worst()
        bad_canary, n_canary, bad_stable, n_stable = self.totals[0, :, worst].tolist()
        quantile = QUANTILES[int(_HARM_ROWS[worst])] * 100
        tolerance = CATASTROPHE_MARGIN if worst >= len(QUANTILES) else self._settings.latency_tolerance
        what = f"responses came more than {percent_words(tolerance)} later than stable's p{quantile:g},"
        return Seen(bad_canary, n_canary, bad_stable, n_stable, what)

    def phi_now(self) -> float:
        return float(self.dispersion.phi[0, _HARM_ROWS[self._worst()]])

    def claim(self, stage: IntArray, judged_s: FloatArray, margin: float) -> str:
        row = int(self._lagging(stage, judged_s)[0][0])
        name = f"p{100 * QUANTILES[int(self._safe_quantile[row])]:.0f}"
        return f"a {name} less than {percent_words(margin)} above stable's"

    def growth(self, stage: IntArray, judged_s: FloatArray) -> float | None:
        """At this step's own split of responses: the share of stable decides how much a response can show."""
        row = int(self._lagging(stage, judged_s)[0][0])
        quantile, (n_canary, n_stable) = int(self._safe_quantile[row]), self.step[0].tolist()
        if not n_canary or not n_stable or self.histogram.total[0] <= _NEEDED[quantile]:
            return None
        first = np.zeros(1, dtype=np.int64)
        share = self.histogram.exceedance(first)
        base = int(nearest_edges(share, _LOG_TAIL)[0, quantile])
        shifted = int(self._shifted[stage[0], _ROWS + row, base])
        if shifted < 0:
            return None
        theta = min(float(share[0, base]), _HIGHEST)
        alternative, per = min(float(share[0, shifted]), 0.999 * theta), n_stable / n_canary
        growth = float(two_by_two(alternative, 1.0, theta * per, per, alternative, theta))
        return growth / float(self.dispersion.phi[0, quantile])

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "edges_us": list(self.edges_us)}

    def load(self, value: Mapping[str, Any]) -> None:
        self._use_edges(tuple(int(edge) for edge in value["edges_us"]))
        super().load(value)
