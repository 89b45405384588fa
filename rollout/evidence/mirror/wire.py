"""What the control plane and the evaluator tell each other, once a second: pairs and labels there, counts back.

JSON in one unary gRPC call on the evaluator's port. The evaluator keeps nothing across its restarts, so every call
carries all pairs; its counts only grow while it lives, and `boot` tells one life from the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rollout.evidence.labels import Label

EXCHANGE: Final = "/penstock.mirror.Evaluator/Exchange"

MAX_ANSWERED: Final = 2_000
"""Pairs of labels that one exchange carries; more are counted and not joined with feedback."""


@dataclass(frozen=True, slots=True)
class Side:
    """A version as its inference server knows it."""

    version: int
    served_name: str
    served_version: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of a model to compare.

    `line` is the rollout's name of the model, `scope` the value of `x-penstock-model` on its requests. `label` is the
    output that is the predicted label, "" without one. Numbers are the same when they differ by no more than
    `absolute` + `relative` x stable's value.
    """

    line: str
    scope: str
    stable: Side
    candidate: Side
    label: str = ""
    batching: bool = True
    relative: float = 0.01
    absolute: float = 1e-6

    @property
    def key(self) -> str:
        return f"{self.line}/{self.stable.version}-{self.candidate.version}"


@dataclass(frozen=True, slots=True)
class LabelNews:
    """A true label that came in for a request; `row` of its batch."""

    request_id: str
    row: int
    label: Label


@dataclass(slots=True)
class PairTotals:
    """Everything compared for one pair since the evaluator started; names as in `rollout.ports.PairedCounts`.

    `schema`: pairs whose outputs differ in name, datatype or shape. `distance_*` are of the largest difference in a
    pair's numeric outputs, in tolerances (above 1 is beyond it), over `distance_count` pairs.
    """

    both_ok: int = 0
    both_bad: int = 0
    candidate_only_bad: int = 0
    stable_only_bad: int = 0
    agreed: int = 0
    disagreed: int = 0
    candidate_slower: int = 0
    stable_slower: int = 0
    dropped: int = 0
    schema: int = 0
    distance_max: float = 0.0
    distance_sum: float = 0.0
    distance_count: int = 0


@dataclass(slots=True)
class Totals:
    """What became of every copy since the evaluator started; `queued` and the bytes are of now.

    `queue_full`, `stale` (its pair is gone), `unreadable`, `foreign` (not a prediction) and `failed` (our own trouble)
    are dropped copies. `sample_dropped` rows were not kept: the disk is full or cannot be written, or is too slow.
    """

    received: int = 0
    compared: int = 0
    queue_full: int = 0
    stale: int = 0
    unreadable: int = 0
    foreign: int = 0
    failed: int = 0
    labels_dropped: int = 0
    sample_rows: int = 0
    sample_dropped: int = 0
    sample_bytes: int = 0
    queued: int = 0
    queued_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The labels that both versions gave a request, per row: what a true label is compared with later."""

    request_id: str
    pair: str
    stable: tuple[Label, ...]
    candidate: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """From the control plane. `seen` is `Report.last_answered` of the last report, which was of life `boot`."""

    pairs: tuple[Pair, ...]
    labels: tuple[LabelNews, ...] = ()
    boot: str = ""
    seen: int = 0

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def of(cls, data: bytes) -> Order:
        """Raises ValueError, KeyError or TypeError for anything else than `to_bytes` made."""
        value = json.loads(data)
        return cls(
            tuple(_pair(pair) for pair in value["pairs"]),
            tuple(LabelNews(**news) for news in value["labels"]),
            str(value["boot"]),
            int(value["seen"]),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """From the evaluator. `answered` are those after `Order.seen`, and `last_answered` is the number of the last."""

    boot: str
    totals: Totals
    pairs: Mapping[str, PairTotals] = field(default_factory=dict)
    answered: tuple[Answered, ...] = ()
    last_answered: int = 0

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def of(cls, data: bytes) -> Report:
        """Raises ValueError, KeyError or TypeError for anything else than `to_bytes` made."""
        value = json.loads(data)
        return cls(
            str(value["boot"]),
            Totals(**value["totals"]),
            {str(key): PairTotals(**totals) for key, totals in value["pairs"].items()},
            tuple(
                Answered(one["request_id"], one["pair"], tuple(one["stable"]), tuple(one["candidate"]))
                for one in value["answered"]
            ),
            int(value["last_answered"]),
        )


def _pair(value: Mapping[str, Any]) -> Pair:
    return Pair(**{**value, "stable": Side(**value["stable"]), "candidate": Side(**value["candidate"])})
