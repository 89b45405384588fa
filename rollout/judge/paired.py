"""Paired evidence: requests that both versions answered, as the mirror evaluator compared them.

What both do alike cancels, so that far fewer requests show a difference than split traffic needs: only pairs in which
the versions differ count (McNemar), one sequential test each for errors, labels and latency, and one against the
owner's limit of disagreement. No user sees these answers; a shadow step rests on them alone.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np

from rollout.judge.evalues import FloatArray, IntArray, rate_against
from rollout.judge.process import SAFE_START, EProcess, log_uniform
from rollout.judge.rows import Rows
from rollout.judge.settings import JudgeSettings, Metric
from rollout.ports import PairedCounts

SAFE_ERRORS = 0.01
"""To pass a shadow step: fewer pairs than this in which only the candidate failed."""
SAFE_WRONG = 0.02
"""And, where labels are known: fewer than this share of answers wrong beyond stable's."""

_SLOWER = 0.6
"""Null of the latency test: of the pairs that differ, the candidate is the slower one this often at most."""
_ALTERNATIVES = {
    Metric.PAIRED_ERRORS: np.array([0.65, 0.75, 0.9, 0.98]),
    Metric.PAIRED_ACCURACY: np.array([0.56, 0.62, 0.7, 0.8, 0.95]),
    Metric.PAIRED_LATENCY: np.array([0.68, 0.78, 0.9, 0.98]),
}
STAKES: FloatArray = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
"""Parts of the wealth that the proof for labels bets on each pair."""
METRICS = (Metric.PAIRED_ERRORS, Metric.PAIRED_ACCURACY, Metric.PAIRED_LATENCY, Metric.AGREEMENT)


@dataclass(frozen=True, slots=True)
class Pairs:
    """`PairedCounts` of many rollouts: each an array over them."""

    both_ok: FloatArray
    both_bad: FloatArray
    candidate_only_bad: FloatArray
    stable_only_bad: FloatArray
    agreed: FloatArray
    disagreed: FloatArray
    labelled: FloatArray
    candidate_only_wrong: FloatArray
    stable_only_wrong: FloatArray
    candidate_slower: FloatArray
    stable_slower: FloatArray

    @classmethod
    def of(cls, counts: PairedCounts) -> Pairs:
        names = cls.__dataclass_fields__
        return cls(*(np.array([getattr(counts, name)], dtype=np.float64) for name in names))

    @property
    def compared(self) -> FloatArray:
        return self.both_ok + self.both_bad + self.candidate_only_bad + self.stable_only_bad


class Paired(Rows):
    """Evidence of harm per metric of `METRICS`, and of safety for errors, labels and agreement."""

    arrays = ("totals",)
    parts = ("errors", "accuracy", "latency", "disagreement", "safe_errors", "safe_accuracy", "safe_agreement")

    def __init__(self, settings: JudgeSettings, runs: int):
        self._settings = settings
        rho, wrong = settings.error_tolerance, settings.wrong_tolerance
        self._null = {
            Metric.PAIRED_ERRORS: rho / (1.0 + rho),
            Metric.PAIRED_ACCURACY: wrong / (1.0 + wrong),
            Metric.PAIRED_LATENCY: _SLOWER,
        }
        self._limit = settings.max_disagreement
        limit = self._limit or 0.5
        self._beyond: FloatArray = limit + (1.0 - limit) * np.array([0.05, 0.15, 0.4, 0.8])
        self.errors, self.accuracy, self.latency = (
            EProcess(runs, (len(alternatives),), log_prior=log_uniform(len(alternatives)))
            for alternatives in _ALTERNATIVES.values()
        )
        self.disagreement = EProcess(runs, (len(self._beyond),), log_prior=log_uniform(len(self._beyond)))
        self.safe_errors = EProcess(runs, (), start=SAFE_START)
        self.safe_accuracy = EProcess(runs, (len(STAKES),), log_prior=log_uniform(len(STAKES)), start=SAFE_START)
        self.safe_agreement = EProcess(runs, (), start=SAFE_START)
        self.totals: FloatArray = np.zeros((runs, len(Pairs.__dataclass_fields__)))

    def _harm(self) -> tuple[EProcess, EProcess, EProcess, EProcess]:
        return self.errors, self.accuracy, self.latency, self.disagreement

    def restart(self, rows: IntArray) -> None:
        for process in self._harm():
            process.restart(rows)

    def restart_safe(self, rows: IntArray) -> None:
        for process in (self.safe_errors, self.safe_accuracy, self.safe_agreement):
            process.restart(rows)

    def observe(self, pairs: Pairs) -> None:
        rows = np.arange(len(self.totals))
        self.totals += np.stack(astuple(pairs), axis=1)
        discordant = (
            (pairs.candidate_only_bad, pairs.stable_only_bad),
            (pairs.candidate_only_wrong, pairs.stable_only_wrong),
            (pairs.candidate_slower, pairs.stable_slower),
        )
        for (metric, alternatives), process, (worse, better) in zip(
            _ALTERNATIVES.items(), self._harm(), discordant, strict=False
        ):
            total = (worse + better)[:, None]
            process.multiply(rows, rate_against(worse[:, None], total, alternatives, self._null[metric]))
        alone, compared = pairs.candidate_only_bad, pairs.compared
        self.safe_errors.multiply(rows, rate_against(alone, compared, SAFE_ERRORS / 10.0, SAFE_ERRORS))
        answers = pairs.agreed + pairs.disagreed
        if self._limit is not None:
            log_f = rate_against(pairs.disagreed[:, None], answers[:, None], self._beyond, self._limit)
            self.disagreement.multiply(rows, log_f)
            self.safe_agreement.multiply(rows, rate_against(pairs.disagreed, answers, self._limit / 2.0, self._limit))
        worse, better = pairs.candidate_only_wrong[:, None], pairs.stable_only_wrong[:, None]
        alike = np.maximum(pairs.labelled[:, None] - worse - better, 0.0)
        # Wealth of a gambler who bets on "less than the margin worse": 1 + stake (margin - difference) per pair.
        log_wealth = (
            worse * np.log1p(STAKES * (SAFE_WRONG - 1.0))
            + better * np.log1p(STAKES * (SAFE_WRONG + 1.0))
            + alike * np.log1p(STAKES * SAFE_WRONG)
        )
        self.safe_accuracy.multiply(rows, log_wealth)

    def log_harm(self) -> FloatArray:
        """(metrics, rollouts). Of accuracy only what is also a material difference: see `JudgeSettings.wrong_floor`."""
        log_e = np.stack([process.log_e() for process in self._harm()])
        labelled, worse, better = (
            self.total(name) for name in ("labelled", "candidate_only_wrong", "stable_only_wrong")
        )
        material = worse - better >= self._settings.wrong_floor * labelled
        log_e[1] = np.where(material, log_e[1], np.minimum(log_e[1], 0.0))
        return log_e

    def log_safe(self) -> FloatArray:
        """(metrics, rollouts). Latency is asked for nothing; labels and agreement where there is anything to ask of."""
        endless = np.full(len(self.totals), math.inf)
        return np.stack(
            [
                self.safe_errors.log_e(),
                np.where(self.total("labelled") > 0, self.safe_accuracy.log_e(), math.inf),
                endless,
                endless if self._limit is None else self.safe_agreement.log_e(),
            ]
        )

    def total(self, name: str) -> FloatArray:
        """Sum of one count since the beginning, per rollout."""
        return self.totals[:, list(Pairs.__dataclass_fields__).index(name)]

    @property
    def compared(self) -> FloatArray:
        """Pairs compared since the beginning, per rollout."""
        names = ("both_ok", "both_bad", "candidate_only_bad", "stable_only_bad")
        result: FloatArray = np.sum([self.total(name) for name in names], axis=0)
        return result
