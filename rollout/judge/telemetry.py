"""Whether a tick can be judged at all. Missing or broken evidence is never good evidence and never a rollback.

A tick with a fault leaves no trace in the judge's state, so that one bad scrape cannot poison what follows.
"""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Integral, Real

import numpy as np

from rollout.ports import ArmCounts, PairedCounts, Tick

LONGEST_TICK_S = 60.0
"""Counts over a longer time may mix several loads or weights; they cannot be paired second by second."""
_ARM_COUNTS = ("ok", "bad", "caller", "labelled", "wrong", "reward_count", "callers", "bad_callers")
_PAIR_COUNTS = tuple(field.name for field in fields(PairedCounts) if field.name != "missing")
_MOST = 10**12
"""Above this a count is a wrapped or reset counter, not traffic."""


def fault(tick: Tick, stable: int, canary: int, last_at: float | None, edges_us: tuple[int, ...]) -> str:
    """Why the tick cannot be judged, in words; empty when it can.

    `last_at` and `edges_us` are the time and the latency bucket edges of the last judged tick.
    """
    trouble = _time_fault(tick, last_at)
    if trouble:
        return trouble
    if stable not in tick.arms and canary not in tick.arms:
        return "telemetry: neither version was reported"
    if tick.edges_us != edges_us and not _rising(tick.edges_us):
        return "telemetry: latency bucket edges are not in rising order"
    for name, version in (("canary", canary), ("stable", stable)):
        if version in tick.arms:
            trouble = _arm_fault(tick.arms[version], len(tick.edges_us), len(tick.classes))
            if trouble:
                return f"telemetry: {name} (version {version}) {trouble}"
    if tick.paired is not None and not tick.paired.missing:
        trouble = _pair_fault(tick.paired)
    return f"telemetry: {trouble}" if trouble else ""


def pairs_fault(tick: Tick, last_at: float | None) -> str:
    """The same for a shadow step, which reads the mirrored pairs alone."""
    trouble = _time_fault(tick, last_at)
    if trouble:
        return trouble
    if tick.paired is None:
        return "telemetry: no mirrored request was compared yet"
    if tick.paired.missing:
        return f"telemetry is missing: {tick.paired.missing}"
    trouble = _pair_fault(tick.paired)
    return f"telemetry: {trouble}" if trouble else ""


def _time_fault(tick: Tick, last_at: float | None) -> str:
    if tick.missing:
        return f"telemetry is missing: {tick.missing}"
    if not _finite(tick.at):
        return f"telemetry: the tick's time is {tick.at}, expected seconds since the epoch"
    if last_at is not None and tick.at <= last_at:
        how = "was judged already" if tick.at == last_at else f"is {last_at - tick.at:g} s older than the last one"
        return f"telemetry: this tick {how} (duplicate or late)"
    if not _finite(tick.seconds) or not 0 < tick.seconds <= LONGEST_TICK_S:
        return f"telemetry: the tick covers {tick.seconds} s, expected more than 0 and at most {LONGEST_TICK_S:g}"
    return ""


def _pair_fault(paired: PairedCounts) -> str:
    for name in _PAIR_COUNTS:
        value = getattr(paired, name)
        if not _count(value):
            return f"mirrored pairs report {name} = {value}, expected a count"
    return ""


def _rising(edges_us: tuple[int, ...]) -> bool:
    return all(0 < below < above for below, above in zip((0.5, *edges_us), edges_us, strict=False))


def _arm_fault(arm: ArmCounts, edges: int, classes: int) -> str:
    for name in _ARM_COUNTS:
        value = getattr(arm, name)
        if not _count(value):
            return f"reports {name} = {value}, expected a count"
    if arm.predicted and len(arm.predicted) != classes:
        return f"reports {len(arm.predicted)} predicted classes, expected {classes}"
    if not all(_count(value) for value in arm.predicted):
        return "reports predicted classes that are negative, broken or too large"
    if arm.bad_callers > arm.callers:
        return f"reports {arm.bad_callers} failing of only {arm.callers} callers"
    if arm.wrong > arm.labelled:
        return f"reports {arm.wrong} wrong of only {arm.labelled} labelled answers"
    if not _finite(arm.reward_sum) or not 0.0 <= arm.reward_sum <= arm.reward_count * (1.0 + 1e-9):
        return f"reports rewards of {arm.reward_sum} in sum over {arm.reward_count}, expected each between 0 and 1"
    return _latency_fault(arm, edges)


def _latency_fault(arm: ArmCounts, edges: int) -> str:
    if not arm.latency:
        return "reports answers but no latency" if edges and arm.ok else ""
    if len(arm.latency) != edges + 1:
        return f"reports {len(arm.latency)} latency buckets, expected {edges + 1} for {edges} edges"
    try:
        counts = np.array(arm.latency)
    except (OverflowError, ValueError):
        return "reports latency counts that are no numbers"
    if counts.dtype.kind not in "iu" or int(counts.min()) < 0 or int(counts.max()) > _MOST:
        return "reports latency counts that are negative, broken or too large"
    return ""


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(float(value))


def _count(value: object) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) <= _MOST
