"""Quality of answers: labels (right or wrong) and bounded rewards, compared by a ratio margin.

Feedback joins the arm that served the request and counts when it arrives: delay is harmless, since both arms wait
alike (whether they do is for `rollout.judge.label_rates` to watch). A reward in [0, 1] counts as the fraction
1 - reward of a wrong answer, which keeps every factor an e-value: log(r a + (1-r) b) >= r log a + (1-r) log b.
"""

from __future__ import annotations

import numpy as np

from rollout.judge.counts import Arms
from rollout.judge.evalues import BoolArray, FloatArray, IntArray, two_by_two
from rollout.judge.margins import MarginTable
from rollout.judge.metric import Evidence, Safety, Seen
from rollout.judge.pairing import Pairing
from rollout.judge.process import SAFE_START, EProcess, log_uniform
from rollout.judge.settings import JudgeSettings, Metric

_SHIFTS: FloatArray = np.array([0.08, 0.15, 0.3, 0.6, 1.2, 2.4, 4.0])
"""Alternatives, in logits above stable. The last two end a badly broken model within a dozen labels."""

MIN_STABLE_LABELS = 30
DECAY_PER_S = 0.995**0.1
"""Memory of stable's wrong rate: half an hour, since labels are few."""
_LOWEST, _HIGHEST = 0.0005, 0.98


class QualityEvidence(Evidence):
    """Answers that were `wrong` among `n` with feedback; labels and rewards say which counts these are."""

    arrays = ("totals", "step", "seen_stable", "recent")
    parts = ("harm", "safe", "pair")

    def __init__(self, settings: JudgeSettings, runs: int, margins: str):
        self._settings = settings
        self._margins = MarginTable(settings.margins.of(margins), placeholder=2.0)
        self.harm = EProcess(runs, (len(_SHIFTS),), log_prior=log_uniform(len(_SHIFTS)))
        self.safe = EProcess(runs, (self._margins.rows,), start=SAFE_START)
        self.pair = Pairing(runs, 1)
        self.totals: FloatArray = np.zeros((runs, 4))
        self.step: FloatArray = np.zeros((runs, 2))
        self.seen_stable: FloatArray = np.zeros(runs)
        self.recent: FloatArray = np.zeros((runs, 2))

    def start_step(self, rows: IntArray) -> None:
        self.safe.begin(rows)
        self.pair.clear(rows)
        self.step[rows] = 0.0

    def restart(self, rows: IntArray) -> None:
        self.harm.restart(rows)

    def restart_safe(self, rows: IntArray) -> None:
        self.safe.restart(rows)

    @property
    def present(self) -> BoolArray:
        result: BoolArray = self.totals[:, 1] + self.totals[:, 3] > 0
        return result

    def _theta_stable(self, rows: IntArray) -> FloatArray:
        recent = self.recent[rows]
        return np.clip((recent[:, 0] + 0.5) / (recent[:, 1] + 1.0), _LOWEST, _HIGHEST)

    def _ratios(self, theta: FloatArray, stage: IntArray) -> FloatArray:
        """Ratios in force: never finer than the floor in points, which is known before the tick as theta is."""
        return np.maximum(self._margins.values[stage], 1.0 + self._settings.wrong_floor / theta[:, None])

    def counts(self, arms: Arms) -> tuple[FloatArray, FloatArray]:
        """(wrong, n) of a version."""
        raise NotImplementedError

    def observe(self, canary: Arms, stable: Arms, seconds: FloatArray, stage: IntArray) -> None:
        (wrong_canary, n_canary), (wrong_stable, n_stable) = self.counts(canary), self.counts(stable)
        self.totals += np.stack([wrong_canary, n_canary, wrong_stable, n_stable], axis=1)
        if not self.totals.any():
            return
        self.step += np.stack([n_canary, n_stable], axis=1)
        pair = self.pair
        over, paired = pair.add(wrong_canary[:, None], n_canary, wrong_stable[:, None], n_stable, seconds)
        ready = paired[self.seen_stable[paired] >= MIN_STABLE_LABELS]
        if ready.size:
            self._grow(ready, stage)
        # Only now: the rates that a pair is judged by must not know it.
        decay = DECAY_PER_S ** pair.seconds[over]
        self.recent[over] *= decay[:, None]
        self.recent[over] += np.stack([pair.stable[over, 0], pair.n_stable[over]], axis=1)
        self.seen_stable[over] += pair.n_stable[over]
        pair.clear(over)

    def _grow(self, rows: IntArray, stage: IntArray) -> None:
        pair, theta = self.pair, self._theta_stable(rows)
        wrong_canary, wrong_stable = pair.canary[rows], pair.stable[rows]
        n_canary, n_stable = pair.n_canary[rows, None], pair.n_stable[rows, None]
        odds = (theta / (1.0 - theta))[:, None] * np.exp(_SHIFTS)
        log_f = two_by_two(
            wrong_canary,
            n_canary,
            wrong_stable,
            n_stable,
            theta_canary=np.minimum(odds / (1.0 + odds), 0.999),
            theta_stable=theta[:, None],
            thinning=1.0 / self._settings.wrong_tolerance,
        )
        self.harm.multiply(rows, log_f)
        ratios = self._ratios(theta, stage[rows])
        log_g = two_by_two(
            wrong_canary,
            n_canary,
            wrong_stable,
            n_stable,
            theta_canary=theta[:, None] / ratios,
            theta_stable=theta[:, None],
            thinning=1.0 / ratios,
        )
        self.safe.multiply(rows, log_g)

    def log_harm(self) -> FloatArray:
        return self.harm.log_e()

    def safety(self, stage: IntArray, judged_s: FloatArray) -> Safety:
        row, at = self._margins.row_at(stage, judged_s), np.arange(len(stage))
        ratios = self._ratios(self._theta_stable(at), stage)
        return Safety(log_e=self.safe.log_e()[at, row], margin=ratios[at, row], asked=self._margins.asked[stage, row])

    def seen(self) -> Seen:
        wrong_canary, n_canary, wrong_stable, n_stable = self.totals[0].tolist()
        return Seen(wrong_canary, n_canary, wrong_stable, n_stable, self.what)

    what: str

    def phi_now(self) -> float:
        return 1.0

    def claim(self, stage: IntArray, judged_s: FloatArray, margin: float) -> str:
        return f"less than {margin:.2f} times stable's share of {self.what}"

    def growth(self, stage: IntArray, judged_s: FloatArray) -> float | None:
        """At the shares of labels seen in this step."""
        n_canary, n_stable = self.step[0].tolist()
        if not n_canary or not n_stable:
            return None
        first = np.zeros(1, dtype=np.int64)
        theta = float(self._theta_stable(first)[0])
        ratio = float(self.safety(stage, judged_s).margin[0])
        per = n_stable / n_canary
        return float(two_by_two(theta, 1.0, theta * per, per, theta / ratio, theta, thinning=1.0 / ratio))


class AccuracyEvidence(QualityEvidence):
    metric = Metric.ACCURACY
    unit = "labels of the canary"
    what = "labelled answers wrong"

    def __init__(self, settings: JudgeSettings, runs: int):
        super().__init__(settings, runs, "wrong_ratio")

    def counts(self, arms: Arms) -> tuple[FloatArray, FloatArray]:
        return arms.wrong, arms.labelled


class RewardEvidence(QualityEvidence):
    metric = Metric.REWARD
    unit = "rewards of the canary"
    what = "reward lost"

    def __init__(self, settings: JudgeSettings, runs: int):
        super().__init__(settings, runs, "reward_ratio")

    def counts(self, arms: Arms) -> tuple[FloatArray, FloatArray]:
        return arms.lost, arms.rewards
