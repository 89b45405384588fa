"""Evidence as compact journal bodies and back, and the running totals of it that people are shown.

Used by `rollout.run`. A tick read back equals the tick that was judged, bit for bit, so that judging it again gives
the same verdict. The running totals (`Tally`) are for display only; the judge keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rollout.judge.settings import Metric
from rollout.judge.verdict import Decision, MetricReport, Verdict
from rollout.ports import ArmCounts, PairedCounts, Tick


def tick_to_json(tick: Tick, known_edges: tuple[int, ...]) -> dict[str, Any]:
    """Zero counts are left out; the edges too when the reader knows them already."""
    body: dict[str, Any] = {"at": tick.at, "s": tick.seconds}
    if tick.missing:
        body["missing"] = tick.missing
    if tick.edges_us != known_edges:
        body["edges"] = list(tick.edges_us)
    if tick.arms:
        body["arms"] = {str(version): arm_to_json(arm) for version, arm in tick.arms.items()}
    if tick.classes:
        body["classes"] = list(tick.classes)
    if tick.by_caller:
        body["by_caller"] = True
    if tick.callers_missing:
        body["callers_missing"] = tick.callers_missing
    if tick.paired is not None:
        body["paired"] = {f.name: value for f in fields(PairedCounts) if (value := getattr(tick.paired, f.name))}
    return body


def tick_from_json(body: Mapping[str, Any], known_edges: tuple[int, ...]) -> Tick:
    return Tick(
        at=body["at"],
        seconds=body["s"],
        arms={int(version): arm_from_json(arm) for version, arm in body.get("arms", {}).items()},
        edges_us=tuple(body["edges"]) if "edges" in body else known_edges,
        missing=body.get("missing", ""),
        classes=tuple(body.get("classes", ())),
        paired=PairedCounts(**body["paired"]) if "paired" in body else None,
        by_caller=body.get("by_caller", False),
        callers_missing=body.get("callers_missing", ""),
    )


def arm_to_json(arm: ArmCounts) -> dict[str, Any]:
    body = {name: value for name in _COUNTS if (value := getattr(arm, name))}
    if arm.latency:
        body["buckets"] = len(arm.latency)
        body["latency"] = [[index, count] for index, count in enumerate(arm.latency) if count]
    if arm.predicted:
        body["predicted"] = list(arm.predicted)
    return body


def arm_from_json(body: Mapping[str, Any]) -> ArmCounts:
    latency = [0] * body.get("buckets", 0)
    for index, count in body.get("latency", ()):
        latency[index] = count
    counts = {name: body[name] for name in _COUNTS if name in body}
    return ArmCounts(latency=tuple(latency), predicted=tuple(body.get("predicted", ())), **counts)


_COUNTS = tuple(f.name for f in fields(ArmCounts) if f.name not in ("latency", "predicted"))
"""The plain numbers among the counts."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Everything seen of each version since the candidate's first step. `edges_us` as in `Tick`."""

    arms: Mapping[int, ArmCounts] = field(default_factory=dict)
    edges_us: tuple[int, ...] = ()

    def plus(self, tick: Tick) -> Tally:
        if tick.missing:
            return Tally(self.arms, tick.edges_us or self.edges_us)
        same_edges = tick.edges_us == self.edges_us
        arms = dict(self.arms)
        for version, counts in tick.arms.items():
            arms[version] = _sum(arms.get(version, ArmCounts()), counts, keep_latency=same_edges)
        return Tally(arms, tick.edges_us)

    def to_json(self) -> dict[str, Any]:
        return {
            "edges": list(self.edges_us),
            "arms": {str(version): arm_to_json(arm) for version, arm in self.arms.items()},
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Tally:
        arms = {int(version): arm_from_json(arm) for version, arm in body["arms"].items()}
        return cls(arms, tuple(body["edges"]))


def quantile_us(latency: tuple[int, ...], edges_us: tuple[int, ...], q: float) -> float | None:
    """The quantile by straight line within its bucket, microseconds; None without data.

    Above the last edge nothing is known: that edge is given, which is then a lower bound.
    """
    total = sum(latency)
    if not total or len(latency) != len(edges_us) + 1:
        return None
    wanted, below = q * total, 0
    for index, count in enumerate(latency[:-1]):
        if count and below + count >= wanted:
            low = edges_us[index - 1] if index else 0
            return low + (edges_us[index] - low) * max(0.0, wanted - below) / count
        below += count
    return float(edges_us[-1]) if edges_us else None


def _sum(a: ArmCounts, b: ArmCounts, *, keep_latency: bool) -> ArmCounts:
    """Sums; buckets of other edges cannot be added, so the old ones are dropped with them."""
    latency = b.latency or (a.latency if keep_latency else ())
    if keep_latency and len(a.latency) == len(b.latency):
        latency = tuple(x + y for x, y in zip(a.latency, b.latency, strict=True))
    return ArmCounts(latency=latency, **{name: getattr(a, name) + getattr(b, name) for name in _COUNTS})


def verdict_from_json(body: Mapping[str, Any]) -> Verdict:
    return Verdict(
        decision=Decision(body["decision"]),
        reason=body["reason"],
        metrics=tuple(_report_from_json(report) for report in body["metrics"]),
    )


def _report_from_json(body: Mapping[str, Any]) -> MetricReport:
    given = {f.name: body[f.name] for f in fields(MetricReport)}
    return MetricReport(**{**given, "metric": Metric(body["metric"])})
