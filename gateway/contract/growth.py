"""What a model's lock is after one more version was promoted: everything that callers were ever served.

Called by the registry when a version becomes stable, with a version that `gateway.contract.compare` did not find
breaking, or with an older one that an undo brings back. So the wider promise of the two is kept, field by field;
names and numbers stay as they were first locked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from adapters.signature import DYNAMIC
from gateway.contract.model import Contract, Field


def grown(lock: Contract | None, contract: Contract) -> Contract:
    """The lock after `contract` was served; without a typed one, the contract itself."""
    if lock is None or not lock.typed:
        return contract
    if not contract.typed:
        return lock
    return replace(
        lock,
        max_rows=max(lock.max_rows, contract.max_rows),
        # Examples are for the version that answers now.
        dynamic_size=contract.dynamic_size,
        inputs=_merged(lock.inputs, contract.inputs, _wider_input),
        outputs=_merged(lock.outputs, contract.outputs, _named_output),
    )


def _merged(
    locked: Sequence[Field], served: Sequence[Field], both: Callable[[Field, Field], Field]
) -> tuple[Field, ...]:
    by_name = {field.name: field for field in served}
    known = {field.name for field in locked}
    kept = [both(field, by_name[field.name]) if field.name in by_name else field for field in locked]
    return (*kept, *(field for field in served if field.name not in known))


def _wider_input(locked: Field, served: Field) -> Field:
    """Callers may rely on what either takes: more shapes, or no value at all."""
    old, new = locked.tensor, served.tensor
    shape = tuple(o if o == n else DYNAMIC for o, n in zip(old.shape, new.shape, strict=True))
    return replace(locked, tensor=replace(old, shape=shape, optional=old.optional or new.optional))


def _named_output(locked: Field, served: Field) -> Field:
    """A shape that has become narrower is within what was promised and changes nothing; class names are new."""
    return replace(locked, tensor=replace(locked.tensor, labels=locked.tensor.labels or served.tensor.labels))
