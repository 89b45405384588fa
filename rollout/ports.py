"""What the controller needs of the world, as small Protocols; the gateway implements them, tests do on virtual time.

Weights are basis points: 0..10,000, the constant sum of an Envoy weighted cluster (a changed sum would move sticky
callers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

FULL_WEIGHT = 10_000

NOTHING: Mapping[str, int] = MappingProxyType({})
"""No shares for any model."""


class Clock(Protocol):
    """Time, passed in so that tests can own it."""

    def now(self) -> float:
        """Seconds since the epoch; what the journal records."""
        ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Serving(Protocol):
    """Versions on inference servers."""

    async def load(self, model: str, version: int) -> None:
        """Load the version everywhere it will serve and prove it by a completed inference.

        Raises `LoadRefused` with the reason in words.
        """
        ...

    async def ready(self, model: str, version: int) -> bool:
        """Whether the version answers now. Never raises."""
        ...

    async def unload(self, model: str, version: int) -> None: ...


class LoadRefused(Exception):
    """The version cannot be served; the message says why, for a person."""


class RouteRefused(Exception):
    """The candidate cannot be routed, now or later; the message says why, for a person."""


class Routing(Protocol):
    """Where requests for a model go. Every call returns when the data plane has acknowledged it, and may be repeated.

    The durable part is which version is stable and which is candidate; the candidate's weight is a lease that
    lapses by itself unless renewed.
    """

    async def stage(self, model: str, candidate: int) -> None:
        """Make the candidate routable at weight 0 (reachable by version pin). Raises `RouteRefused`."""
        ...

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int] = NOTHING) -> None:
        """Publish and renew the candidates' weights, model -> basis points. Called once per controller tick with
        every active rollout; a model left out goes back to its stable version at once.

        `mirrors` are the shares of requests, in basis points, that are copied to the mirror evaluator; none for a
        model left out. They are part of the same lease and lapse with it."""
        ...

    async def promote(self, model: str, candidate: int) -> None:
        """Make the candidate stable. Traffic on the way is always on one of the two versions."""
        ...

    async def withdraw(self, model: str, candidate: int) -> None:
        """Take the candidate out of the routes; its weight is 0 from here on."""
        ...


class Outcome(StrEnum):
    """How a request ended, as the judge counts it."""

    OK = "ok"
    BAD = "bad"
    CALLER = "caller"
    """The caller's own mistake or departure: counts for nobody."""


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """What one version did in one tick.

    `latency` counts successful responses per histogram bucket: index i is (edges[i-1], edges[i]], the last is
    above every edge. `labelled`/`wrong` count feedback that arrived in the tick for answers of this version.
    `predicted` counts answers by predicted class, in the order of the tick's `classes`.
    `callers`/`bad_callers` are for sticky traffic: callers of this version that were not failing already, and how many
    of them began to fail in this tick (`rollout.evidence.failing`).
    """

    ok: int = 0
    bad: int = 0
    caller: int = 0
    latency: tuple[int, ...] = ()
    labelled: int = 0
    wrong: int = 0
    reward_count: int = 0
    reward_sum: float = 0.0
    predicted: tuple[int, ...] = ()
    callers: int = 0
    bad_callers: int = 0

    @property
    def requests(self) -> int:
        return self.ok + self.bad


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Requests that both versions answered, as the mirror evaluator compared them in one tick.

    Every compared request is in one of the four error counts. Those that both answered well are in `agreed` or
    `disagreed` (label, or outputs beyond the tolerance). Labelled ones where exactly one version was right are in
    `candidate_only_wrong` or `stable_only_wrong`; `labelled` counts all pairs whose true label is known.
    `candidate_slower`/`stable_slower` count pairs whose latencies differ by more than the evaluator's noise.
    `dropped` mirrored requests were not compared (queue full, evaluator behind): they say nothing about a version.
    A label may arrive long after its pair was compared, so a tick may count more labels than pairs.
    """

    missing: str = ""
    """Non-empty: the mirror evaluator could not be asked, and why. The counts are then meaningless."""

    both_ok: int = 0
    both_bad: int = 0
    candidate_only_bad: int = 0
    stable_only_bad: int = 0
    agreed: int = 0
    disagreed: int = 0
    labelled: int = 0
    candidate_only_wrong: int = 0
    stable_only_wrong: int = 0
    candidate_slower: int = 0
    stable_slower: int = 0
    dropped: int = 0

    @property
    def compared(self) -> int:
        return self.both_ok + self.both_bad + self.candidate_only_bad + self.stable_only_bad


@dataclass(frozen=True, slots=True)
class Tick:
    """Evidence of one tick for one model: counts per version since the previous tick.

    `classes` names the predicted classes that `ArmCounts.predicted` counts. `paired` is None without a mirror.
    """

    at: float
    seconds: float
    arms: Mapping[int, ArmCounts] = field(default_factory=dict)
    edges_us: tuple[int, ...] = ()
    missing: str = ""
    """Non-empty: telemetry could not be read, and why. Arms are then meaningless."""
    classes: tuple[str, ...] = ()
    paired: PairedCounts | None = None
    by_caller: bool = False
    """Whether the traffic is sticky and `ArmCounts.callers` is counted, also where it is 0; from here on the judge goes
    by callers."""
    callers_missing: str = ""
    """Non-empty: the callers of sticky traffic could not be counted, and why. The tick is judged by request."""


class Evidence(Protocol):
    """A source of ticks, read once per controller tick for all models with an active rollout."""

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """One `Tick` per model. Never raises: trouble is a Tick with `missing` set.

        Counts are since the previous call. A model that was left out of that one begins anew: what came meanwhile is
        evidence in no rollout."""
        ...
