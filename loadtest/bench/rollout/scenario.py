"""What is true in a simulated rollout: how the canary differs from stable, and how noisy the world is."""

from __future__ import annotations

from dataclasses import dataclass, replace

CLASSES = ("a", "b", "c", "d")


@dataclass(frozen=True, slots=True)
class Scenario:
    """The canary's own rates. `bad` says whether it should be rolled back.

    errors:   share of failing requests (stable: 0.001)
    p50, tail: factors on the whole latency, and on what is above its 95th percentile
    accuracy: share of right answers (stable: 0.92)
    classes:  share of each predicted class
    outage:   a common outage of one to three minutes falls into the first ten
    """

    name: str
    bad: bool
    errors: float = 0.001
    p50: float = 1.0
    tail: float = 1.0
    accuracy: float = 0.92
    classes: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    outage: bool = False


STABLE = Scenario("stable", bad=False)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("identical", bad=False),
        Scenario("better", bad=False, errors=0.0005, p50=0.9, accuracy=0.94),
        Scenario("outage of both", bad=False, outage=True),
        Scenario("errors 0.5 %", bad=True, errors=0.005),
        Scenario("errors 1 %", bad=True, errors=0.01),
        Scenario("errors 5 %", bad=True, errors=0.05),
        Scenario("errors 50 %", bad=True, errors=0.5),
        Scenario("crash", bad=True, errors=1.0),
        Scenario("p99 +25 %", bad=True, tail=1.25),
        Scenario("p99 +100 %", bad=True, tail=2.0),
        Scenario("p50 +10 %", bad=True, p50=1.1),
        Scenario("accuracy 90 %", bad=True, accuracy=0.90),
        Scenario("accuracy 85 %", bad=True, accuracy=0.85),
        Scenario("at every tolerance", bad=False, errors=0.0013, p50=1.05, accuracy=0.916),
        Scenario("drift only", bad=False, classes=(0.2, 0.3, 0.2, 0.3)),
    )
}


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations are of the logarithm; each process forgets in one to five minutes.

    shared_*:   moves both arms alike (load, dependencies)
    arm_*:      moves each arm by itself (replicas, placement)
    diurnal:    amplitude of the day's course of the load
    cluster:    errors come in clusters of this mean size
    bursts:     common bursts of errors and of slowness, each about once in ten minutes
    warm_up:    factor on the canary's latency at the start of a step, gone after some minutes
    gc_latency: latency of each arm climbs by this much and drops again, every minute and a half, out of step
    sticky:     callers stay on their version; a few of the busiest fail whatever version they are on
    label_delay_s: how late feedback arrives
    label_loss: share of the labels of the canary's right answers that never arrive
    """

    name: str
    shared_load: float = 0.0
    shared_errors: float = 0.0
    shared_latency: float = 0.0
    arm_errors: float = 0.0
    arm_latency: float = 0.0
    diurnal: float = 0.0
    cluster: float = 1.0
    bursts: bool = False
    warm_up: float = 1.0
    gc_latency: float = 0.0
    sticky: bool = False
    label_delay_s: int = 0
    label_loss: float = 0.0


_REALISTIC = Noise(
    "realistic",
    shared_load=0.25,
    shared_errors=0.5,
    shared_latency=0.1,
    arm_latency=0.01,
    diurnal=0.25,
    bursts=True,
    warm_up=1.8,
    label_delay_s=45,
)

NOISES = {
    noise.name: noise
    for noise in (
        Noise("none"),
        _REALISTIC,
        replace(_REALISTIC, name="per version", arm_errors=0.4, arm_latency=0.03, cluster=3.0),
        Noise("shared", shared_load=0.25, shared_errors=0.5, shared_latency=0.1),
        Noise("clustered", cluster=3.0),
        Noise("bursts", bursts=True),
        Noise("diurnal", diurnal=0.7),
        Noise("warm-up", warm_up=1.8),
        Noise("gc", gc_latency=0.3),
        Noise("sticky", sticky=True),
        Noise("label delay", label_delay_s=300),
        Noise("label loss", label_delay_s=45, label_loss=0.6),
    )
}
"""`realistic` and `per version` (with noise of each version and clustered errors) mix most of the others."""
