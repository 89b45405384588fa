"""The scenarios that ship: what each does to the rate over time, and what is concluded from a ramp.

Pure. `loadtest.run` plays them; a rate is requests per second in an open loop, users in a closed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from loadtest.schedule import Schedule, Stage, constant

RAMP_STEPS = 10
"""Plateaus of a ramp: the knee is told to a tenth of the highest rate."""

SPIKE_FACTOR = 5.0

KEPT_UP = 0.95
"""A plateau is carried when at least this share of what was due was answered within it."""

TAIL_FACTOR = 5.0
"""A plateau is past the knee when its p99 is this many times the lowest plateau's ..."""

TAIL_FLOOR_MS = 25.0
"""... and above this, so that a tail of 2 ms instead of 0.4 ms is no knee."""


class Scenario(StrEnum):
    """What a run does."""

    STEADY = "steady"
    RAMP = "ramp"
    SPIKE = "spike"
    SOAK = "soak"
    CANARY = "canary"

    @property
    def default_seconds(self) -> float:
        return {
            Scenario.STEADY: 60.0,
            Scenario.RAMP: 60.0,
            Scenario.SPIKE: 60.0,
            Scenario.SOAK: 3600.0,
            Scenario.CANARY: 600.0,
        }[self]

    def schedule(self, rate: float, seconds: float) -> Schedule:
        """The rate over time. `rate` is the steady rate, of a ramp the highest, of a spike the one between spikes."""
        match self:
            case Scenario.RAMP:
                step = seconds / RAMP_STEPS
                return Schedule(
                    tuple(Stage(step, rate * i / RAMP_STEPS, rate * i / RAMP_STEPS) for i in range(1, RAMP_STEPS + 1))
                )
            case Scenario.SPIKE:
                calm, high, edge = seconds * 0.3, seconds * 0.3, seconds * 0.05
                top = rate * SPIKE_FACTOR
                rising, falling = Stage(edge, rate, top), Stage(edge, top, rate)
                quiet = Stage(calm, rate, rate)
                return Schedule((quiet, rising, Stage(high, top, top), falling, quiet))
            case Scenario.STEADY | Scenario.SOAK | Scenario.CANARY:
                return constant(rate, seconds)


@dataclass(frozen=True, slots=True)
class Plateau:
    """What one step of a ramp showed. `offered` is the rate asked for (users in a closed loop), `answered` the
    successful answers per second; `generator_bound` says that the load generator itself could not keep up."""

    offered: float
    answered: float
    failed: int
    p99_ms: float | None
    generator_bound: bool


@dataclass(frozen=True, slots=True)
class Knee:
    """Where a ramp stopped being carried. `rate` is the last rate that was, None when not even the first was.

    `gave_way` says that a step was not carried, `why` which and how; `generator_bound` that the load generator was the
    one that gave way.
    """

    rate: float | None
    gave_way: bool
    why: str
    generator_bound: bool = False

    @property
    def found(self) -> bool:
        return self.gave_way and not self.generator_bound


def find_knee(plateaus: Sequence[Plateau], *, closed: bool = False) -> Knee:
    """The last plateau before the first that was not carried; `why` says what gave way, or that nothing did.

    In a closed loop the rate is what users get: past the knee more users get hardly more answers.
    """
    best_ms = min((plateau.p99_ms for plateau in plateaus if plateau.p99_ms is not None), default=None)
    carried: Plateau | None = None
    for plateau in plateaus:
        fault = _fault(plateau, best_ms, carried if closed else None, closed=closed)
        if fault:
            rate = None if carried is None else carried.answered if closed else carried.offered
            if plateau.generator_bound:
                words = f"{fault}, but the load generator or its machine could not keep up: no limit of the server's"
                return Knee(rate, True, words, generator_bound=True)
            return Knee(rate, True, fault)
        carried = plateau
    if carried is None:
        return Knee(None, False, "nothing was sent")
    rate = carried.answered if closed else carried.offered
    return Knee(rate, False, f"no knee up to {rate:,.0f}/s, the highest rate of the ramp")


def _fault(plateau: Plateau, best_ms: float | None, before: Plateau | None, *, closed: bool) -> str:
    at = f"{plateau.offered:,.0f} users" if closed else f"{plateau.offered:,.0f}/s"
    if plateau.failed:
        return f"at {at} {plateau.failed:,} requests failed"
    if not closed and plateau.answered < KEPT_UP * plateau.offered:
        return f"at {at} only {plateau.answered:,.0f}/s were answered"
    if before is not None and plateau.answered < before.answered * (1 + 0.25 * (plateau.offered / before.offered - 1)):
        return f"at {at} {plateau.answered:,.0f}/s were answered, hardly more than {before.answered:,.0f}/s before"
    if closed:
        return ""
    limit = max(TAIL_FLOOR_MS, TAIL_FACTOR * (best_ms or 0.0))
    if plateau.p99_ms is None or plateau.p99_ms > limit:
        words = "nothing was answered" if plateau.p99_ms is None else f"p99 was {plateau.p99_ms:,.0f} ms"
        return f"at {at} {words}, at the calmest step {best_ms or 0:,.1f} ms"
    return ""
