"""The judge of one rollout: ticks of evidence in, verdicts out. Pure: no clock, no I/O, no chance.

The controller makes one per rollout, tells it of each step, feeds it every tick and journals `state()` with the
verdicts; a judge made from that state goes on bit for bit. What a verdict does to the weights is the controller's.
The method: compare canary with stable within the same tick, multiply evidence over ticks, never look at a p-value
twice. Statistics per metric live in their own files; here is only how they become one decision.
"""

from __future__ import annotations

import math
from typing import Protocol

from rollout.judge import telemetry
from rollout.judge.ceiling import Ceiling
from rollout.judge.errors import ErrorEvidence
from rollout.judge.guardrail import Scan
from rollout.judge.labels import LabelEvidence
from rollout.judge.latency import LatencyEvidence
from rollout.judge.process import RESTART_EVERY_S, RESTARTS
from rollout.judge.settings import ALPHA_SHARES, JudgeSettings, Metric
from rollout.judge.state import JudgeState
from rollout.judge.verdict import Decision, MetricReport, Verdict, percent_words, share_words
from rollout.ports import ArmCounts, Tick

SUSPICION_LOG_E = math.log(4.0)
"""Evidence of harm above which a step is not passed even if everything asked was shown."""

_NO_COUNTS = ArmCounts()
_MIN_FREEZE_REQUESTS = 20


class _MetricEvidence(Protocol):
    """What the judge asks of every metric alike."""

    def restart(self) -> None: ...

    def restart_safe(self) -> None: ...

    def report(self, judged_s: float, log_needed: float, log_safe_needed: float) -> MetricReport: ...


class Judge:
    """Judges one rollout. Call `start_step` first, then `observe` with every tick.

    Raises ValueError when `state` was written under other settings.
    """

    def __init__(self, settings: JudgeSettings, state: JudgeState | None = None):
        self._settings = settings
        self._errors = ErrorEvidence(settings)
        self._latency = LatencyEvidence(settings)
        self._labels = {metric: LabelEvidence(settings, metric) for metric in (Metric.ACCURACY, Metric.REWARD)}
        self._metrics: dict[Metric, _MetricEvidence] = {
            Metric.ERRORS: self._errors,
            Metric.LATENCY: self._latency,
            **self._labels,
        }
        self._scan = Scan()
        self._ceilings: dict[str, Ceiling] = {}
        if settings.max_error_share is not None:
            self._ceilings["errors"] = Ceiling(settings.max_error_share)
        if settings.max_p99_us is not None:
            self._ceilings["p99"] = Ceiling(0.01)
        self._weight_bp, self._last = -1, False
        self._step_at, self._last_at = 0.0, -math.inf
        self._judged_s, self._step_s = 0.0, 0.0
        self._restarts, self._step_restarts, self._steps = 0, 0, 0
        if state is not None:
            self._load(state)

    def start_step(self, weight_bp: int, at: float, last: bool) -> None:
        """A step begins: the canary gets `weight_bp` basis points from `at` (seconds, the ticks' clock) on.

        `last`: passing it gives the canary all traffic, so it asks for the final margins. From 9,000 bp on the step
        is a bake. What must be shown is shown anew in every step (bugs depend on load); evidence of harm goes on.
        """
        if not 0 < weight_bp <= 10_000:
            raise ValueError(f"start_step: expected a weight of 1 to 10,000 basis points, received {weight_bp}")
        self._weight_bp, self._last, self._step_at = weight_bp, last, at
        self._step_s, self._step_restarts = 0.0, 0
        self._steps += 1
        self._begin(weight_bp, last)

    def _begin(self, weight_bp: int, last: bool) -> None:
        margins = self._settings.margins.of_step(weight_bp, last)
        self._errors.start_step(margins.errors)
        self._latency.start_step(margins.p50, margins.p99)
        self._labels[Metric.ACCURACY].start_step(margins.wrong_ratio)
        self._labels[Metric.REWARD].start_step(margins.reward_ratio)
        self._scan.start_step()

    def observe(self, tick: Tick, stable: int, canary: int) -> Verdict:
        """Judge one tick of evidence for the two versions. Holds, unchanged, when the tick cannot be judged."""
        if self._weight_bp < 0:
            raise RuntimeError("judge: observe was called before start_step")
        if stable == canary:
            raise ValueError(f"observe: expected two versions, received version {stable} as stable and canary")
        last_at = None if self._last_at == -math.inf else self._last_at
        trouble = telemetry.fault(tick, stable, canary, last_at, self._latency.edges_us)
        if trouble:
            return Verdict(Decision.HOLD, trouble, self._reports())
        arm_c, arm_s = tick.arms.get(canary, _NO_COUNTS), tick.arms.get(stable, _NO_COUNTS)
        if tick.edges_us and tick.edges_us != self._latency.edges_us:
            changed = bool(self._latency.edges_us)
            self._latency.start_baseline(tick.edges_us)
            if changed:
                return Verdict(
                    Decision.HOLD, "telemetry: latency is counted in other buckets; learning anew", self._reports()
                )
        self._absorb(tick, arm_c, arm_s)
        return self._decide(tick.at, arm_c, arm_s)

    def _absorb(self, tick: Tick, canary: ArmCounts, stable: ArmCounts) -> None:
        seconds = tick.seconds
        self._restart_reserves()
        bad_c, n_c, bad_s, n_s = canary.bad, canary.requests, stable.bad, stable.requests
        self._errors.observe(bad_c, n_c, bad_s, n_s, seconds)
        self._latency.observe(canary.latency, stable.latency, seconds, self._warm)
        self._labels[Metric.ACCURACY].observe(canary.wrong, canary.labelled, stable.wrong, stable.labelled, seconds)
        self._labels[Metric.REWARD].observe(
            max(canary.reward_count - canary.reward_sum, 0.0),
            canary.reward_count,
            max(stable.reward_count - stable.reward_sum, 0.0),
            stable.reward_count,
            seconds,
        )
        self._scan.observe(tick.at, bad_c, n_c, bad_s, n_s)
        if "errors" in self._ceilings:
            self._ceilings["errors"].observe(bad_c, n_c, bad_s, n_s, seconds)
        if "p99" in self._ceilings and tick.edges_us:
            slow = [self._slow(arm.latency, tick.edges_us) for arm in (canary, stable)]
            self._ceilings["p99"].observe(*slow[0], *slow[1], seconds)
        self._last_at = tick.at
        self._judged_s += seconds
        self._step_s += seconds

    def _slow(self, latency: tuple[int, ...], edges_us: tuple[int, ...]) -> tuple[int, int]:
        """Responses in buckets wholly above the owner's p99 ceiling, and all."""
        limit = self._settings.max_p99_us or math.inf
        first = next((index for index, edge in enumerate(edges_us) if edge >= limit), len(edges_us))
        return sum(latency[first + 1 :]), sum(latency)

    def _restart_reserves(self) -> None:
        # On a schedule of judged time, known beforehand: the sum of all mass stays 1.
        while self._restarts < min(RESTARTS, int(self._judged_s // RESTART_EVERY_S)):
            self._restarts += 1
            for metric in self._metrics.values():
                metric.restart()
            for ceiling in self._ceilings.values():
                ceiling.restart()
        while self._step_restarts < min(RESTARTS, int(self._step_s // RESTART_EVERY_S)):
            self._step_restarts += 1
            for metric in self._metrics.values():
                metric.restart_safe()

    @property
    def _warm(self) -> bool:
        wait = self._settings.warm_up_start_s if self._steps == 1 else self._settings.warm_up_step_s
        return self._step_s >= wait

    def _present(self) -> list[Metric]:
        present = [Metric.ERRORS]
        if self._latency.present:
            present.append(Metric.LATENCY)
        present += [metric for metric, evidence in self._labels.items() if evidence.present]
        return present

    def _log_needed(self, present: list[Metric]) -> dict[Metric, float]:
        """Evidence of harm that rolls back: alpha is divided among the metrics that have data.

        A metric whose first data come in mid-rollout takes its part from then on; the chance of a false rollback over
        the whole rollout is then at most alpha plus that part.
        """
        whole = sum(ALPHA_SHARES[metric] for metric in present)
        return {metric: -math.log(self._settings.alpha * ALPHA_SHARES[metric] / whole) for metric in present}

    def _reports(self) -> tuple[MetricReport, ...]:
        present = self._present()
        needed, safe = self._log_needed(present), -math.log(self._settings.beta)
        return tuple(self._metrics[metric].report(self._judged_s, needed[metric], safe) for metric in present)

    def _decide(self, at: float, canary: ArmCounts, stable: ArmCounts) -> Verdict:
        reports = self._reports()
        harm = self._harm(at, canary, reports)
        if harm:
            return Verdict(Decision.ROLL_BACK, harm, reports)
        obstacle = self._obstacle(at, canary, stable, reports)
        if obstacle:
            return Verdict(Decision.HOLD, obstacle, reports)
        return Verdict(Decision.ADVANCE, self._proven(reports), reports)

    def _harm(self, at: float, canary: ArmCounts, reports: tuple[MetricReport, ...]) -> str:
        if self._settings.guardrail and canary.bad:
            alarm = self._scan.alarm(at)
            if alarm:
                return alarm
        harmful = [report for report in reports if report.harmful]
        if harmful:
            return max(harmful, key=lambda report: report.harm_log_e - report.harm_log_needed).harm_words
        for name, ceiling in self._ceilings.items():
            if self._over(ceiling) and not ceiling.stable_over:
                return f"ceiling: the canary is over {self._limit_words(name)}, stable is not"
        return ""

    def _over(self, ceiling: Ceiling) -> bool:
        return ceiling.log_canary() >= -math.log(self._settings.alpha)

    def _limit_words(self, name: str) -> str:
        if name == "errors":
            return f"the limit of {percent_words(self._settings.max_error_share or 0.0)} failed requests"
        return f"the limit of {(self._settings.max_p99_us or 0.0) / 1000:g} ms for p99"

    def _obstacle(self, at: float, canary: ArmCounts, stable: ArmCounts, reports: tuple[MetricReport, ...]) -> str:
        """Why the step cannot be passed now; the most telling reason first."""
        for name, ceiling in self._ceilings.items():
            if ceiling.stable_over:
                both = " as the canary is" if self._over(ceiling) else ""
                return f"stable is over {self._limit_words(name)}{both}: nothing advances until it recovers"
        frozen = self._frozen(at)
        if frozen:
            return frozen
        for report in reports:
            if report.suspicion_log_e > SUSPICION_LOG_E:
                return f"suspicion, {report.harm_words}"
        if not canary.requests or not stable.requests:
            return f"no requests of {'the canary' if not canary.requests else 'stable'} in this tick"
        missing = self._settings.required - {report.metric for report in reports}
        if missing:
            return f"no data yet for {', '.join(sorted(missing))}, which this rollout requires"
        unsafe = [report for report in reports if not report.safe]
        if unsafe:
            return "; ".join(report.safe_words for report in unsafe)
        if self._step_s < self._settings.min_step_s:
            return f"the step has run {self._step_s:.0f} s of at least {self._settings.min_step_s:.0f}"
        return ""

    def _frozen(self, at: float) -> str:
        """Stable is failing: what a canary shows in a common outage proves nothing.

        A canary that is itself within the limit passes: a broken stable must not hold up its own fix.
        """
        bad_c, n_c, bad_s, n_s = self._scan.shares(at)
        limit = self._settings.stable_error_limit
        if n_s < _MIN_FREEZE_REQUESTS or bad_s <= limit * n_s:
            return ""
        if n_c >= _MIN_FREEZE_REQUESTS and bad_c <= limit * n_c:
            return ""
        return f"stable itself is failing, {share_words(bad_s, n_s)} of late: nothing advances until it recovers"

    def _proven(self, reports: tuple[MetricReport, ...]) -> str:
        shown = [_margin_words(report) for report in reports if report.margin is not None]
        proof = ", ".join(shown) if shown else "nothing asked at this traffic any more, no sign of harm"
        return f"shown to be safe: {proof} (chance of error {percent_words(self._settings.beta)} each)"

    def state(self) -> JudgeState:
        return JudgeState.of(
            {
                "step": [self._weight_bp, self._last, self._step_at, self._step_s, self._step_restarts, self._steps],
                "last_at": None if self._last_at == -math.inf else self._last_at,
                "judged_s": self._judged_s,
                "restarts": self._restarts,
                "errors": self._errors.to_json(),
                "latency": self._latency.to_json(),
                "labels": {metric.value: evidence.to_json() for metric, evidence in self._labels.items()},
                "scan": self._scan.to_json(),
                "ceilings": {name: ceiling.to_json() for name, ceiling in self._ceilings.items()},
            }
        )

    def _load(self, state: JudgeState) -> None:
        parts = state.parts()
        weight, last, step_at, step_s, step_restarts, steps = parts["step"]
        self._weight_bp, self._last, self._step_at = int(weight), bool(last), float(step_at)
        self._step_s, self._step_restarts, self._steps = float(step_s), int(step_restarts), int(steps)
        if self._weight_bp > 0:
            self._begin(self._weight_bp, self._last)
        self._last_at = -math.inf if parts["last_at"] is None else float(parts["last_at"])
        self._judged_s, self._restarts = float(parts["judged_s"]), int(parts["restarts"])
        self._errors.load(parts["errors"])
        self._latency.load(parts["latency"])
        for metric, evidence in self._labels.items():
            evidence.load(parts["labels"][metric.value])
        self._scan.load(parts["scan"])
        if set(parts["ceilings"]) != set(self._ceilings):
            raise ValueError(
                f"judge state: expected ceilings {sorted(self._ceilings)}, received {sorted(parts['ceilings'])}; "
                "the settings differ from those the state was written under: start the step anew"
            )
        for name, ceiling in self._ceilings.items():
            ceiling.load(parts["ceilings"][name])


def _margin_words(report: MetricReport) -> str:
    margin = report.margin or 0.0
    match report.metric:
        case Metric.ERRORS:
            return f"errors less than {percent_words(margin)} of requests beyond stable's"
        case Metric.LATENCY:
            return f"latency less than {percent_words(margin)} above stable's"
        case _:
            return f"{report.metric.value} less than {margin:.2f} times stable's share of wrong answers"
