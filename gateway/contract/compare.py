"""Locked contract against a new version's signature: may it take over without breaking a caller?

Called before a version is loaded, on its artefact's signature, and again on what the live server says. Every
difference is reported, each with what it means for callers; the verdict is the worst of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from adapters.signature import DYNAMIC, Signature, TensorSpec
from gateway.contract.derive import derive, needs_shape_field
from gateway.contract.model import Contract, Field

_SHOWN = 5
"""Class names in a message; models of a thousand classes exist."""


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
                        "Export the model with what is listed above as it was; or publish it as a new API beside "
                        "this one with `--new-api-major`; or deploy it under a new name.",
                    ]
                )

    @staticmethod
    def _lines(changes: Sequence[Change]) -> list[str]:
        return [f"  - {change}" for change in changes]


def compare(locked: Contract, signature: Signature) -> Verdict:
    """The verdict on a signature. Tensors are the same when their names are; their order does not matter."""
    after = derive(locked.model, signature, locked)
    api = locked.full_service if locked.typed else f"{locked.model} (Open Inference Protocol alone)"
    if locked.typed and not after.typed:
        return Verdict(api, tuple(Change("typed API", f"it would end: {why}", True) for why in after.obstacles))
    changes = (
        *_typing(locked, after),
        *_streaming(locked, after),
        *_batching(locked, signature),
        *_inputs(locked.takes, signature.inputs),
        *_shapes(locked.inputs, signature.inputs),
        *_outputs(locked.gives, signature.outputs),
    )
    return Verdict(api, changes)


def _typing(locked: Contract, after: Contract) -> Iterator[Change]:
    if after.typed and not locked.typed:
        yield Change("typed API", "begins: nothing is left of what stood in its way", False)


def _streaming(locked: Contract, after: Contract) -> Iterator[Change]:
    if after.decoupled and not locked.decoupled:
        what = "callers expect one answer, and this version streams any number of them (it is decoupled)"
        yield Change("answers", what, True)
    elif locked.decoupled and not after.decoupled:
        yield Change("answers", "callers read a stream of answers, and this version gives one", True)


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
        yield Change(f"inputs.{tensor.name}", f"is gone{renamed}; callers {_send(tensor)} it", True)
    for tensor in _missing(after, before):
        path = f"inputs.{tensor.name}"
        if tensor.optional:
            yield Change(path, f"is new and optional ({_kind(tensor)})", False)
        else:
            yield Change(path, f"is new and required ({_kind(tensor)}); callers do not send it", True)
    for old, new in _pairs(before, after):
        path = f"inputs.{old.name}"
        yield from _same_kind(path, old, new)
        if old.optional and not new.optional:
            yield Change(path, "was optional, is required: callers may leave it out", True)
        elif new.optional and not old.optional:
            yield Change(path, "was required, is optional", False)
        if len(old.shape) == len(new.shape) and old.shape != new.shape:
            narrower = any(n not in (o, DYNAMIC) for o, n in zip(old.shape, new.shape, strict=True))
            meaning = "what callers send no longer fits" if narrower else "it takes more than before"
            yield Change(path, f"shape was {list(old.shape)}, is {list(new.shape)}: {meaning}", narrower)


def _shapes(before: Sequence[Field], after: Sequence[TensorSpec]) -> Iterator[Change]:
    """Inputs whose shape callers did not have to say and now would."""
    said = {field.name for field in before if field.shape_field is None}
    for tensor in after:
        if tensor.name in said and needs_shape_field(tensor.shape):
            what = f"the number of values no longer tells the shape {list(tensor.shape)}, and callers do not send one"
            yield Change(f"inputs.{tensor.name}", what, True)


def _outputs(before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> Iterator[Change]:
    for tensor in _missing(before, after):
        renamed = _renamed(tensor, before, after)
        yield Change(f"outputs.{tensor.name}", f"is gone{renamed}; callers read it", True)
    for tensor in _missing(after, before):
        yield Change(f"outputs.{tensor.name}", f"is new ({_kind(tensor)})", False)
    for old, new in _pairs(before, after):
        path = f"outputs.{old.name}"
        yield from _same_kind(path, old, new)
        yield from _labels(path, old.labels, new.labels)
        if len(old.shape) == len(new.shape) and old.shape != new.shape:
            wider = any(o not in (n, DYNAMIC) for o, n in zip(old.shape, new.shape, strict=True))
            meaning = "callers rely on the old size" if wider else "within what callers expect"
            yield Change(path, f"shape was {list(old.shape)}, is {list(new.shape)}: {meaning}", wider)


def _labels(path: str, old: Sequence[str], new: Sequence[str]) -> Iterator[Change]:
    """Callers give an index its meaning by the class names."""
    if old and not new:
        yield Change(path, f"its {len(old)} class names are gone: callers know what an index means by them", True)
    elif new and not old:
        yield Change(path, f"has class names now ({_few(new)})", False)
    elif new != old:
        moved = next((i for i, (was, now) in enumerate(zip(old, new, strict=False)) if was != now), None)
        if moved is not None:
            what = f"class {moved} was {old[moved]!r}, is {new[moved]!r}: callers take one for the other"
        elif len(new) > len(old):
            what = f"has classes that callers do not know: {_few(new[len(old) :])}"
        else:
            what = f"has lost the classes {_few(old[len(new) :])}"
        yield Change(path, what, True)


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


def _send(tensor: TensorSpec) -> str:
    return "may send" if tensor.optional else "send"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
