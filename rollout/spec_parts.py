"""The parts of a rollout spec that are more than a number: shadow step, golden set, Prometheus, gates, webhooks.

Values only. Read by `rollout.spec`, which holds them, and by the sources of evidence and the notifier they are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rollout.ports import FULL_WEIGHT


@dataclass(frozen=True, slots=True)
class ShadowSpec:
    """A step before the first in which no user is exposed: requests are copied, and both versions' answers compared.

    share_bp:         basis points of live requests that are copied (1,000: enough pairs in minutes, a tenth more load)
    requests:         least number of compared pairs before the step is passed (500)
    max_disagreement: share of answers that may differ from stable's (None: models may differ as much as they like)
    tolerance:        numbers that differ relatively by no more than this agree (0.01)
    """

    share_bp: int = FULL_WEIGHT // 10
    requests: int = 500
    max_disagreement: float | None = None
    tolerance: float = 0.01


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """A labelled file on which the loaded candidate is evaluated before any traffic.

    file:         its digest, "sha256:...", as the upload answered; the path it was read from before that
    min_accuracy: least share of right answers (None: not asked)
    max_drop:     how many points of share the candidate may be below stable on the same file (None: not asked)
    """

    file: str
    min_accuracy: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True, slots=True)
class QueryPair:
    """PromQL for each version, with {{model}}, {{stable}} and {{candidate}} to be filled in."""

    stable: str
    candidate: str


@dataclass(frozen=True, slots=True)
class PrometheusSpec:
    """Counts that Prometheus has, as evidence. Every query gives one growing counter.

    requests, errors: what each version answered, and failed (always)
    labelled, wrong:  answers whose truth is known, and those that were wrong (None: not from here)
    age:              PromQL for the age of the newest sample in seconds (None: not asked; Prometheus drops a series
                      five minutes after its last sample)
    max_age_s:        samples older than this are missing data (60: four scrapes at the usual 15 s)
    """

    url: str
    requests: QueryPair
    errors: QueryPair
    labelled: QueryPair | None = None
    wrong: QueryPair | None = None
    age: str | None = None
    max_age_s: float = 60.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PrometheusSpec:
        pairs = {
            name: None if value[name] is None else QueryPair(**value[name])
            for name in ("requests", "errors", "labelled", "wrong")
        }
        return cls(**{**value, **pairs})


@dataclass(frozen=True, slots=True)
class Gate:
    """The rollout stops before step `before` (from 0; as many as there are steps: before the promotion).

    seconds: how long (None: until an operator says `resume`)
    """

    before: int
    seconds: float | None = None


class Occasion(StrEnum):
    """What a webhook can be told of."""

    STARTED = "started"
    ADVANCED = "advanced"
    WAITING = "waiting"
    """For an operator: a gate without a time."""
    PAUSED = "paused"
    OVERDUE = "overdue"
    ROLLING_BACK = "rolling_back"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Somebody who wants to hear of the rollout: an HTTP address that takes Slack's payload.

    `on`: the occasions (all)
    """

    url: str
    on: frozenset[Occasion] = frozenset(Occasion)

    def to_json(self) -> dict[str, Any]:
        return {"url": self.url, "on": sorted(occasion.value for occasion in self.on)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Webhook:
        return cls(value["url"], frozenset(Occasion(name) for name in value["on"]))
