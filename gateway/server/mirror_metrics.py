"""What `GET /metrics` says of the mirror evaluator, as it was at the last exchange with it.

Copies that never reached it (it was dead, or slower than Envoy waits) are Envoy's to count: the cluster
`penstock-mirror` of Envoy's own metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rollout.evidence.mirror.source import MirrorHealth

_OUTCOMES = ("compared", "queue_full", "stale", "unreadable", "foreign", "failed")


class MirrorMetrics(Collector):
    """`health` is asked at each scrape."""

    def __init__(self, health: Callable[[], MirrorHealth]) -> None:
        self._health = health

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        health = self._health()
        totals = health.totals
        requests = CounterMetricFamily(
            "penstock_mirror_requests", "Mirrored requests by what became of them.", labels=["outcome"]
        )
        for outcome in _OUTCOMES:
            requests.add_metric([outcome], getattr(totals, outcome))
        yield requests
        yield GaugeMetricFamily("penstock_mirror_queued", "Mirrored requests that wait.", value=totals.queued)
        rows = CounterMetricFamily("penstock_mirror_sample_rows", "Rows of the sample on disk.", labels=["outcome"])
        rows.add_metric(["kept"], totals.sample_rows)
        rows.add_metric(["dropped"], totals.sample_dropped)
        yield rows
        yield GaugeMetricFamily(
            "penstock_mirror_sample_bytes", "Size of the sample on disk.", value=totals.sample_bytes
        )
        yield CounterMetricFamily(
            "penstock_mirror_unanswered", "Ticks in which the evaluator did not answer.", value=health.failures
        )
        yield CounterMetricFamily(
            "penstock_mirror_restarts", "Evaluators that began anew while they were wanted.", value=health.restarts
        )
