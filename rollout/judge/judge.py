"""The judge of one rollout: ticks of evidence in, verdicts out. Pure: no clock, no I/O, no chance.

The controller makes one per rollout, tells it of each step, feeds it every tick and journals `state()` with the
verdicts; a judge made from that state goes on bit for bit. What a verdict does to the weights is the controller's.
The method: compare canary with stable within the same tick, multiply evidence over ticks, never look at a p-value
twice. What is decided is decided in `rollout.judge.panel`; here a tick is checked and a decision put into words.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rollout.judge import telemetry
from rollout.judge.counts import Arms
from rollout.judge.flow import Flow, Standing
from rollout.judge.forecast import PATIENCE_S, Forecast, forecast
from rollout.judge.margins import STAGES, Stage
from rollout.judge.paired import Paired, Pairs
from rollout.judge.paired_report import reports as paired_reports
from rollout.judge.panel import Findings, Panel
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.state import JudgeState
from rollout.judge.verdict import Decision, MetricReport, Verdict, percent_words, share_words
from rollout.ports import ArmCounts, Tick

_NO_COUNTS = ArmCounts()
_FIRST = np.zeros(1, dtype=np.int64)


class Judge:
    """Judges one rollout. Call `start_step` first, then `observe` with every tick.

    Raises ValueError when `state` was written under other settings.
    """

    def __init__(self, settings: JudgeSettings, state: JudgeState | None = None):
        self._settings = settings
        self._panel = Panel(settings, 1)
        self._paired = Paired(settings, 1)
        self._last_at: float | None = None
        self._by_caller = False
        if state is not None:
            self._load(state)

    def start_step(self, weight_bp: int, at: float, stage: Stage) -> None:
        """A step begins: the canary gets `weight_bp` basis points from `at` (seconds, the ticks' clock) on.

        `stage` says what must be shown, anew in every step (bugs depend on load); evidence of harm goes on.
        """
        if not 0 < weight_bp <= 10_000:
            raise ValueError(f"start_step: expected a weight of 1 to 10,000 basis points, received {weight_bp}")
        self._panel.start_step(_FIRST, weight_bp, stage)

    def observe(self, tick: Tick, stable: int, canary: int, weight_bp: int | None = None) -> Verdict:
        """Judge one tick of evidence for the two versions. Holds, unchanged, when the tick cannot be judged.

        `weight_bp`: the weight that the data plane was told for this tick, where it is not the step's; 0 for none.
        """
        if self._panel.weight_bp[0] < 0:
            raise RuntimeError("judge: observe was called before start_step")
        if stable == canary:
            raise ValueError(f"observe: expected two versions, received version {stable} as stable and canary")
        trouble = telemetry.fault(tick, stable, canary, self._last_at, self._panel.latency.edges_us)
        if trouble:
            return Verdict(Decision.HOLD, trouble, self._reports())
        if tick.edges_us and tick.edges_us != self._panel.latency.edges_us:
            changed = bool(self._panel.latency.edges_us)
            self._panel.latency.start_baseline(tick.edges_us)
            if changed:
                reason = "telemetry: latency is counted in other buckets; learning anew"
                return Verdict(Decision.HOLD, reason, self._reports())
        counts = [tick.arms.get(version, _NO_COUNTS) for version in (canary, stable)]
        self._by_caller = self._by_caller or tick.by_caller or all(arm.callers for arm in counts)
        by_caller = self._by_caller and not tick.callers_missing
        self._panel.errors.count_callers(by_caller)
        buckets, classes = len(self._panel.latency.edges_us) + 1, len(tick.classes)
        arms = [Arms.of(arm, by_caller=by_caller, buckets=buckets, classes=classes) for arm in counts]
        findings = self._panel.observe(
            np.array([tick.at]), np.array([tick.seconds]), arms[0], arms[1], self._share(weight_bp)
        )
        if tick.paired is not None and not tick.paired.missing:
            self._paired.observe(Pairs.of(tick.paired))
        self._last_at = tick.at
        verdict = self._put_into_words(tick, findings, arms[0])
        if not tick.callers_missing:
            return verdict
        why = f"judged by request, since callers could not be counted ({tick.callers_missing})"
        return replace(verdict, reason=f"{verdict.reason}; {why}")

    def _share(self, weight_bp: int | None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The configured share. Sticky callers come in lumps, which says nothing of the data plane."""
        known = self._panel.weight_bp[0] if weight_bp is None else weight_bp
        return np.array([0.0 if self._by_caller else known / 10_000])

    def _reports(self) -> tuple[MetricReport, ...]:
        panel = self._panel
        present = panel.present()
        needed = panel.log_needed(present)
        split = [
            metric.report(panel.stage, panel.judged_s, float(needed[index, 0]), panel.log_safe_needed)
            for index, metric in enumerate(panel.metrics)
            if present[index, 0]
        ]
        return (*split, *paired_reports(self._paired, self._settings))

    def _put_into_words(self, tick: Tick, findings: Findings, canary: Arms) -> Verdict:
        found = self._reports()
        harm = self._harm(tick, findings, found)
        if harm:
            return Verdict(Decision.ROLL_BACK, harm, found)
        if findings.advance[0]:
            return Verdict(Decision.ADVANCE, self._proven(found), found)
        return Verdict(Decision.HOLD, self._obstacle(tick, findings, canary, found), found)

    def _harm(self, tick: Tick, findings: Findings, found: tuple[MetricReport, ...]) -> str:
        if findings.alarm[0]:
            what = "caller seconds" if self._panel.errors.by_caller else "requests"
            return self._panel.scan.words(np.array([tick.at]), what)
        counted = {m.metric for m, harmful in zip(self._panel.metrics, findings.harmful[:, 0], strict=True) if harmful}
        harmful = [r for r in found if r.metric in counted or (r.harmful and r.metric in _PAIRED)]
        if harmful:
            return max(harmful, key=lambda report: report.harm_log_e - report.harm_log_needed).harm_words
        for index, name in enumerate(self._panel.ceilings, start=1):
            if findings.over[index, 0]:
                return f"ceiling: the canary is over {self._limit_words(name)}, stable is not"
        if findings.drift_harm[0]:
            return f"{self._drift_words(tick)}, which this rollout forbids"
        return ""

    def _limit_words(self, name: str) -> str:
        if name == "errors":
            return f"the limit of {percent_words(self._settings.max_error_share or 0.0)} failed requests"
        return f"the limit of {(self._settings.max_p99_us or 0.0) / 1000:g} ms for p99"

    def _drift_words(self, tick: Tick) -> str:
        drift = self._panel.drift
        share = drift.seen[0] / drift.seen[0].sum(axis=1, keepdims=True)
        most = int(np.abs(share[0] - share[1]).argmax())
        name = tick.classes[most] if most < len(tick.classes) else str(most)
        return (
            f"drift: the candidate predicts {name!r} in {percent_words(float(share[0, most]))} of answers, stable in "
            f"{percent_words(float(share[1, most]))} (population stability index {float(drift.psi[0]):.2f})"
        )

    def _obstacle(self, tick: Tick, findings: Findings, canary: Arms, found: tuple[MetricReport, ...]) -> str:
        """Why the step cannot be passed now; the most telling reason first."""
        for index, name in enumerate(self._panel.ceilings, start=1):
            if findings.freezing[index, 0]:
                both = " as the canary is" if self._panel.canary_over()[index - 1][0] else ""
                return f"stable is over {self._limit_words(name)}{both}: nothing advances until it recovers"
        if findings.frozen[0]:
            bad, n = self._panel.scan.shares(np.array([tick.at]))[0, 2:]
            return f"stable itself is failing, {share_words(bad, n)} of late: nothing advances until it recovers"
        if findings.off_share[0]:
            return self._share_words()
        if findings.lopsided[0]:
            return self._label_words()
        for index, metric in enumerate(self._panel.metrics):
            report = next((r for r in found if r.metric is metric.metric), None)
            if report is not None and findings.suspicious[index, 0]:
                return f"suspicion, {report.harm_words}"
        if findings.drifted[0]:
            return f"{self._drift_words(tick)}: whether that is wanted is for a person to say (promote or abort)"
        if findings.silent[0]:
            return f"no requests of {'the canary' if not canary.requests[0] else 'stable'} in this tick"
        missing = sorted(m.value for m in self._settings.required - {report.metric for report in found})
        if missing:
            return f"no data yet for {', '.join(missing)}, which this rollout requires"
        unsafe = [r.safe_words for r in found if r.metric not in _PAIRED and not r.safe]
        if unsafe:
            return "; ".join(unsafe)
        if findings.undrifted[0]:
            return "drift: not shown yet that both versions predict the classes alike"
        return f"the step has run {self._panel.step_s[0]:.0f} s of at least {self._settings.min_step_s:.0f}"

    def _share_words(self) -> str:
        delivered, configured = self._panel.share.delivered[0], self._panel.weight_bp[0] / 10_000
        return (
            f"the data plane sends {percent_words(float(delivered))} of requests to the canary, configured are "
            f"{percent_words(float(configured))}: look for a proxy without the present weights, or pinned callers"
        )

    def _label_words(self) -> str:
        canary, stable = self._panel.label_rates.rates(0)
        return (
            f"labels come for {percent_words(canary)} of the canary's answers and for {percent_words(stable)} of "
            "stable's: what they say of accuracy is no evidence until both are labelled alike"
        )

    def _proven(self, found: tuple[MetricReport, ...]) -> str:
        shown = [
            _margin_words(report) for report in found if report.margin is not None and report.metric not in _PAIRED
        ]
        proof = ", ".join(shown) if shown else "nothing asked at this traffic any more, no sign of harm"
        return f"shown to be safe: {proof} (chance of error {percent_words(self._settings.beta)} each)"

    def forecast(self, *, least_s: float = 0.0, deadline_s: float = PATIENCE_S) -> Forecast:
        """How long until a verdict in this step, at the traffic judged so far. Seconds from now: the step takes
        `least_s` in any case, and is to be decided within `deadline_s`."""
        panel, stage = self._panel, STAGES[self._panel.stage[0]]
        flow, standing = Flow.of(panel, by_caller=self._by_caller), Standing.of(panel, self._settings)
        return forecast(
            self._settings, stage, int(panel.weight_bp[0]), flow, standing, least_s=least_s, deadline_s=deadline_s
        )

    def state(self) -> JudgeState:
        panel = self._panel
        return JudgeState.of(
            {
                "last_at": self._last_at,
                "by_caller": self._by_caller,
                "classes": panel.drift.seen.shape[2],
                "panel": panel.to_json(),
                "ceilings": {name: ceiling.to_json() for name, ceiling in panel.ceilings.items()},
                "paired": self._paired.to_json(),
            }
        )

    def _load(self, state: JudgeState) -> None:
        parts, panel = state.parts(), self._panel
        if set(parts["ceilings"]) != set(panel.ceilings):
            raise ValueError(
                f"judge state: expected ceilings {sorted(panel.ceilings)}, received {sorted(parts['ceilings'])}; "
                "the settings differ from those the state was written under: start the step anew"
            )
        self._last_at = None if parts["last_at"] is None else float(parts["last_at"])
        self._by_caller = bool(parts["by_caller"])
        panel.errors.count_callers(self._by_caller)
        panel.expect_classes(int(parts["classes"]))
        panel.load(parts["panel"])
        for name, ceiling in panel.ceilings.items():
            ceiling.load(parts["ceilings"][name])
        self._paired.load(parts["paired"])


_PAIRED = frozenset({Metric.PAIRED_ERRORS, Metric.PAIRED_ACCURACY, Metric.PAIRED_LATENCY, Metric.AGREEMENT})


def _margin_words(report: MetricReport) -> str:
    margin = report.margin or 0.0
    match report.metric:
        case Metric.ERRORS:
            return f"errors less than {percent_words(margin)} of requests beyond stable's"
        case Metric.LATENCY:
            return f"latency less than {percent_words(margin)} above stable's"
        case _:
            return f"{report.metric.value} less than {margin:.2f} times stable's share of wrong answers"
