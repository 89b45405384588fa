"""`GET /metrics` of the control plane, in Prometheus' text format.

Only what the control plane knows: requests and latency per version are Envoy's own metrics. Most values are read when
Prometheus asks; what must be counted as it happens is counted here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.deploy import DeployStage
from gateway.registry import Registry
from gateway.serving import InferenceServing
from rollout.controller import Work
from rollout.evidence.feedback import FeedbackDesk
from rollout.machine import FINAL, State
from rollout.ports import FULL_WEIGHT
from rollout.report import RolloutStatus


class Metrics:
    """`active` gives the unsettled rollouts, `work` what the controller did; `more` is exported too.

    The controller gets `on_change`.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        serving: InferenceServing,
        desk: FeedbackDesk,
        active: Callable[[], Sequence[RolloutStatus]],
        work: Callable[[], Work],
        more: Sequence[Collector] = (),
    ) -> None:
        self._collected = CollectorRegistry()
        for collector in more:
            self._collected.register(collector)
        self._collected.register(_Now(registry=registry, serving=serving, desk=desk, active=active))
        self._collected.register(_Worked(work))
        self._deployments = Counter(
            "penstock_deployments",
            "Deployments by how they ended: live, rollout, unrouted, unchanged, failed or refused.",
            ["outcome"],
            registry=self._collected,
        )
        self._verdicts = Counter(
            "penstock_rollout_verdicts",
            "Rollouts that were decided, by outcome.",
            ["model", "outcome"],
            registry=self._collected,
        )
        self._decided: dict[str, int] = {}

    def on_change(self, status: RolloutStatus) -> None:
        """Count a rollout when it is decided; a promoted one that is undone counts as rolled back too."""
        if status.state not in FINAL:
            self._decided.pop(status.model, None)
        elif self._decided.get(status.model) != status.rollout_id:
            self._decided[status.model] = status.rollout_id
            self._verdicts.labels(status.model, status.state.value).inc()

    def deployed(self, stage: DeployStage) -> None:
        self._deployments.labels(stage.value).inc()

    def refused(self) -> None:
        self._deployments.labels("refused").inc()

    def text(self) -> bytes:
        return generate_latest(self._collected)


class _Now(Collector):
    """Values read at each scrape."""

    def __init__(
        self,
        *,
        registry: Registry,
        serving: InferenceServing,
        desk: FeedbackDesk,
        active: Callable[[], Sequence[RolloutStatus]],
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._desk = desk
        self._active = active

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._versions()
        yield from self._rollouts()
        yield from self._feedback()

    def _versions(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("penstock_models", "Models that were deployed.", value=len(self._registry.models()))
        ready = GaugeMetricFamily(
            "penstock_version_ready", "1 if the version's last test inference completed.", labels=["model", "version"]
        )
        probe = GaugeMetricFamily(
            "penstock_version_probe_seconds", "How long the last test inference took.", labels=["model", "version"]
        )
        for (model, version), seen in sorted(self._serving.readiness().items()):
            ready.add_metric([model, str(version)], float(seen.ready))
            if seen.ready:
                probe.add_metric([model, str(version)], seen.probe_s)
        yield ready
        yield probe

    def _rollouts(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "penstock_rollout_state", "1 for the state that the rollout is in.", labels=["model", "candidate", "state"]
        )
        weight = GaugeMetricFamily(
            "penstock_rollout_weight_ratio", "The candidate's share of traffic now.", labels=["model", "candidate"]
        )
        mirror = GaugeMetricFamily(
            "penstock_rollout_mirror_ratio",
            "The share of requests that both versions answer, unseen.",
            labels=["model", "candidate"],
        )
        step = GaugeMetricFamily(
            "penstock_rollout_step",
            "The step that the rollout is in; 0 before the first.",
            labels=["model", "candidate"],
        )
        frozen = GaugeMetricFamily(
            "penstock_rollout_frozen", "1 while a freeze of the spec is in force.", labels=["model", "candidate"]
        )
        evidence = GaugeMetricFamily(
            "penstock_rollout_evidence_ratio",
            "How far the evidence is towards each decision; 1 is enough.",
            labels=["model", "candidate", "metric", "towards"],
        )
        forecast = GaugeMetricFamily(
            "penstock_rollout_forecast_seconds",
            "Expected time until each decision on the present step, at the traffic seen in it; +Inf is never.",
            labels=["model", "candidate", "metric", "until"],
        )
        for status in self._active():
            version = [status.model, str(status.candidate)]
            for known in State:
                state.add_metric([*version, known.value], float(status.state is known))
            weight.add_metric(version, status.weight_bp / FULL_WEIGHT)
            mirror.add_metric(version, status.mirror_bp / FULL_WEIGHT)
            step.add_metric(version, status.step)
            frozen.add_metric(version, float(status.frozen_until is not None))
            for metric in status.metrics:
                evidence.add_metric([*version, metric.metric, "advance"], metric.toward_advance)
                evidence.add_metric([*version, metric.metric, "rollback"], metric.toward_rollback)
            for name, pass_s, detect_s in _foreseen(status):
                forecast.add_metric([*version, name, "advance"], math.inf if pass_s is None else pass_s)
                forecast.add_metric([*version, name, "rollback"], math.inf if detect_s is None else detect_s)
        yield state
        yield weight
        yield mirror
        yield step
        yield frozen
        yield evidence
        yield forecast

    def _feedback(self) -> Iterator[Metric]:
        totals = self._desk.store.totals
        outcomes = CounterMetricFamily(
            "penstock_feedback", "Labels and rewards by what became of them.", labels=["outcome"]
        )
        outcomes.add_metric(["joined"], totals.joined)
        outcomes.add_metric(["duplicate"], totals.duplicates)
        outcomes.add_metric(["expired"], totals.expired)
        outcomes.add_metric(["unmatched"], totals.unmatched)
        yield outcomes
        yield GaugeMetricFamily(
            "penstock_feedback_pending",
            "Labels and rewards that wait for their prediction.",
            value=self._desk.store.pending,
        )
        logged = CounterMetricFamily(
            "penstock_predictions_logged", "Access log entries of predictions.", labels=["outcome"]
        )
        logged.add_metric(["kept"], totals.predictions)
        logged.add_metric(["dropped"], self._desk.dropped)
        yield logged


def _foreseen(status: RolloutStatus) -> Iterator[tuple[str, float | None, float | None]]:
    """(metric, seconds until advance, seconds until rollback) of the present step; `all` is the whole of it."""
    if status.forecast is not None:
        yield "all", status.forecast.pass_s, status.forecast.detect_s
        for row in status.forecast.rows:
            yield row.name, row.prove_s, row.detect_s


class _Worked(Collector):
    """What the rollout controller has done since it started, read at each scrape."""

    def __init__(self, work: Callable[[], Work]) -> None:
        self._work = work

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        work = self._work()
        verdicts = CounterMetricFamily(
            "penstock_rollout_ticks", "Ticks of evidence that were judged, by verdict.", labels=["model", "verdict"]
        )
        for (model, decision), count in sorted(work.verdicts.items()):
            verdicts.add_metric([model, decision.value], count)
        yield verdicts
        records = CounterMetricFamily(
            "penstock_journal_records", "Records written to the rollout journal.", labels=["kind"]
        )
        for kind, count in sorted(work.records.items()):
            records.add_metric([kind.value], count)
        yield records
        yield CounterMetricFamily(
            "penstock_journal_bytes", "Size of the records written to the rollout journal.", value=work.record_bytes
        )
        notices = CounterMetricFamily("penstock_notices", "Webhooks by what became of them.", labels=["outcome"])
        for outcome in ("delivered", "failed", "dropped", "retries"):
            notices.add_metric([outcome], getattr(work.notices, outcome))
        yield notices
        yield GaugeMetricFamily(
            "penstock_notices_waiting", "Webhooks that wait to be sent.", value=work.notices_waiting
        )
