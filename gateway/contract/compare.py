"""Locked contract against a new version's signature: may it take over without breaking a caller?

Called before a version is loaded, on its artefact's signature, and again on what the live server says. Every
difference is reported, each with what it means for callers; the verdict is the worst of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from adapters.signature import DYNAMIC, Signature, TensorSpec
from gateway.contract.derive import Untypable, derive
from gateway.contract.model import Contract


class Outcome(StrEnum):
    IDENTICAL = "identical"
    COMPATIBLE = "compatible"
    BREAKING = "breaking"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `field` is a path such as "inputs.x", "outputs.label" or "batching"."""

    field: str
    what: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.field}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the lock says of a new version. `str()` of it is the message for a person."""

    api: str
    changes: tuple[Change, ...]

    @property
    def outcome(self) -> Outcome:
        if any(change.breaking for change in self.changes):
            return Outcome.BREAKING
        return Outcome.COMPATIBLE if self.changes else Outcome.IDENTICAL

    @property
    def breaking(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.breaking)

    def __str__(self) -> str:
        match self.outcome:
            case Outcome.IDENTICAL:
                return f"the API {self.api} stays as it is"
            case Outcome.COMPATIBLE:
                return "\n".join([f"the API {self.api} grows and breaks no caller:", *self._lines(self.changes)])
            case Outcome.BREAKING:
                return "\n".join(
                    [
                        f"this version would break callers of {self.api}:",
                        *self._lines(self.breaking),
                        "Export the model with what is listed above as it was, or deploy it under a new name.",
                    ]
                )

    @staticmethod
    def _lines(changes: Sequence[Change]) -> list[str]:
        return [f"  - {change}" for change in changes]


def compare(locked: Contract, signature: Signature) -> Verdict:
    """The verdict on a signature. Tensors are the same when their names are; their order does not matter."""
    try:
        derive(locked.model, signature, locked)
    except Untypable as untypable:
        return Verdict(
            locked.full_service,
            tuple(Change(o.tensor or "signature", f"cannot be typed: {o.why}", True) for o in untypable.obstacles),
        )
    changes = (
        *_batching(locked, signature),
        *_inputs([f.tensor for f in locked.inputs], signature.inputs),
        *_outputs([f.tensor for f in locked.outputs], signature.outputs),
    )
    return Verdict(locked.full_service, changes)


def _batching(locked: Contract, signature: Signature) -> Iterator[Change]:
    if locked.batching and not signature.batching:
        yield Change("batching", "callers send instances, and this version takes a single request without them", True)
    elif signature.batching and not locked.batching:
        yield Change("batching", "callers send a single request, and this version takes instances", True)
    elif signature.batching and signature.max_batch_size < locked.max_rows:
        yield Change("max_rows", f"was {locked.max_rows}, is {signature.max_batch_size}: larger requests fail", True)
    elif signature.batching and signature.max_batch_size > locked.max_rows:
        yield Change("max_rows", f"was {locked.max_rows}, is {signature.max_batch_size}", False)


def _inputs(before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> Iterator[Change]:
    for tensor in _missing(before, after):
        renamed = _renamed(tensor, before, after)
        yield Change(f"inputs.{tensor.name}", f"is gone{renamed}; callers send it", True)
    for tensor in _missing(after, before):
        yield Change(f"inputs.{tensor.name}", f"is new and required ({_kind(tensor)}); callers do not send it", True)
    for old, new in _pairs(before, after):
        path = f"inputs.{old.name}"
        yield from _same_kind(path, old, new)
        if len(old.shape) == len(new.shape) and old.shape != new.shape:
            narrower = any(n not in (o, DYNAMIC) for o, n in zip(old.shape, new.shape, strict=True))
            meaning = "what callers send no longer fits" if narrower else "it takes more than before"
            yield Change(path, f"shape was {list(old.shape)}, is {list(new.shape)}: {meaning}", narrower)


def _outputs(before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> Iterator[Change]:
    for tensor in _missing(before, after):
        renamed = _renamed(tensor, before, after)
        yield Change(f"outputs.{tensor.name}", f"is gone{renamed}; callers read it", True)
    for tensor in _missing(after, before):
        yield Change(f"outputs.{tensor.name}", f"is new ({_kind(tensor)})", False)
    for old, new in _pairs(before, after):
        path = f"outputs.{old.name}"
        yield from _same_kind(path, old, new)
        if len(old.shape) == len(new.shape) and old.shape != new.shape:
            wider = any(o not in (n, DYNAMIC) for o, n in zip(old.shape, new.shape, strict=True))
            meaning = "callers rely on the old size" if wider else "within what callers expect"
            yield Change(path, f"shape was {list(old.shape)}, is {list(new.shape)}: {meaning}", wider)


def _same_kind(path: str, old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    if old.datatype is not new.datatype:
        yield Change(path, f"datatype was {old.datatype}, is {new.datatype}", True)
    if len(old.shape) != len(new.shape):
        yield Change(
            path,
            f"rank was {len(old.shape)} (shape {list(old.shape)}), is {len(new.shape)} (shape {list(new.shape)})",
            True,
        )


def _missing(here: Sequence[TensorSpec], there: Sequence[TensorSpec]) -> list[TensorSpec]:
    names = {tensor.name for tensor in there}
    return [tensor for tensor in here if tensor.name not in names]


def _pairs(before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    by_name = {tensor.name: tensor for tensor in after}
    return ((old, by_name[old.name]) for old in before if old.name in by_name)


def _renamed(gone: TensorSpec, before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> str:
    alike = [t.name for t in _missing(after, before) if (t.datatype, t.shape) == (gone.datatype, gone.shape)]
    return f" (renamed to {alike[0]!r}? give it its old name back)" if len(alike) == 1 else ""


def _kind(tensor: TensorSpec) -> str:
    return f"{tensor.datatype} {list(tensor.shape)}"
