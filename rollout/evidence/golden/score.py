"""How two versions did on a golden set, and what that means against the owner's thresholds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from rollout.evidence.labels import Label, same_label
from rollout.spec_parts import GoldenSpec

CONFIDENCE: Final = 0.05
"""A drop counts when the paired test gives it at most this chance of being luck."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Examples of one true class, and how many of them each version got right."""

    label: str
    examples: int
    stable_right: int
    candidate_right: int


@dataclass(frozen=True, slots=True)
class GoldenScore:
    """Both versions on the same examples.

    `candidate_only_wrong` and `stable_only_wrong` are the examples that tell the two apart; `chance` is the probability
    that a candidate as good as stable would lose at least as many of those as it did (exact sign test, McNemar 1947).
    An example that a version failed on is a wrong answer; `candidate_failed` counts those.
    """

    examples: int
    stable_right: int
    candidate_right: int
    candidate_only_wrong: int
    stable_only_wrong: int
    stable_failed: int
    candidate_failed: int
    chance: float
    classes: tuple[ClassScore, ...]

    @property
    def stable_accuracy(self) -> float:
        return self.stable_right / self.examples

    @property
    def candidate_accuracy(self) -> float:
        return self.candidate_right / self.examples

    def words(self) -> str:
        """One line for a person."""
        return (
            f"golden set of {self.examples:,}: candidate {100 * self.candidate_accuracy:.1f} % right, stable "
            f"{100 * self.stable_accuracy:.1f} %; {self.candidate_only_wrong} answers only the candidate got wrong, "
            f"{self.stable_only_wrong} only stable"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "stable_accuracy": self.stable_accuracy,
            "candidate_accuracy": self.candidate_accuracy,
            "words": self.words(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GoldenScore:
        """What `to_json` gave; other fields beside it are left alone."""
        known = {f.name: value[f.name] for f in fields(cls)}
        return cls(**{**known, "classes": tuple(ClassScore(**one) for one in value["classes"])})


@dataclass(frozen=True, slots=True)
class Marked:
    """One example with what the versions answered; None where a version failed."""

    label: Label
    stable: Label | None
    candidate: Label | None


def score(marked: Sequence[Marked]) -> GoldenScore:
    """Raises ValueError without examples."""
    if not marked:
        raise ValueError("a golden set has at least one example")
    classes: dict[str, list[int]] = {}
    right = [(_right(one.stable, one.label), _right(one.candidate, one.label)) for one in marked]
    for one, (stable, candidate) in zip(marked, right, strict=True):
        counts = classes.setdefault(str(one.label), [0, 0, 0])
        counts[0] += 1
        counts[1] += stable
        counts[2] += candidate
    lost = sum(stable and not candidate for stable, candidate in right)
    won = sum(candidate and not stable for stable, candidate in right)
    return GoldenScore(
        examples=len(marked),
        stable_right=sum(stable for stable, _ in right),
        candidate_right=sum(candidate for _, candidate in right),
        candidate_only_wrong=lost,
        stable_only_wrong=won,
        stable_failed=sum(one.stable is None for one in marked),
        candidate_failed=sum(one.candidate is None for one in marked),
        chance=sign_test(lost, won),
        classes=tuple(ClassScore(label, *counts) for label, counts in sorted(classes.items(), key=_order)),
    )


def refusal(found: GoldenScore, spec: GoldenSpec) -> str:
    """Why the candidate must not be exposed; empty when it may.

    A drop beyond `max_drop` must be more than the luck of few examples, or a small file would refuse good versions.
    """
    if spec.min_accuracy is not None and found.candidate_accuracy < spec.min_accuracy:
        return f"{found.words()}: below the required {100 * spec.min_accuracy:.1f} %"
    drop = found.stable_accuracy - found.candidate_accuracy
    if spec.max_drop is not None and drop > spec.max_drop and found.chance <= CONFIDENCE:
        return (
            f"{found.words()}: {drop * 100:.1f} points below stable, {spec.max_drop * 100:.1f} allowed "
            f"(chance of such a loss by luck {found.chance:.2g})"
        )
    return ""


def sign_test(lost: int, won: int) -> float:
    """P(at least `lost` of lost + won fair coins), exact."""
    n = lost + won
    # In logs: the terms of a large n are far below the smallest float.
    terms = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(lost, n + 1)]
    top = max(terms)
    return min(1.0, math.exp(top - n * math.log(2.0)) * math.fsum(math.exp(term - top) for term in terms))


def _right(answer: Label | None, label: Label) -> bool:
    return answer is not None and same_label(answer, label)


def _order(item: tuple[str, Any]) -> tuple[bool, float, str]:
    try:
        return (False, float(item[0]), "")
    except ValueError:
        return (True, 0.0, item[0])
