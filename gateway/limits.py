"""How large a request to a model may be: what one largest batch needs, within what the operator allows.

Pure; called by `gateway.routing_state` for every line. The most verbose protocol is JSON, so the sizes are of text.
Requests and answers share the limit, since Envoy has one for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from gateway.contract.model import Contract
from gateway.envoy.state import ModelLimits

FLOOR_BYTES = 1024 * 1024
"""Least limit of any model: 1 MiB, so that small models take generously indented JSON and their callers hear "too many
rows" rather than "too large"."""

CEILING_FLAG = "penstock up --max-body-bytes"

_TEXT_BYTES: Mapping[Datatype, int] = {
    # The longest number of each datatype as the usual encoders write it, a comma and a blank. Bytes of text.
    Datatype.BOOL: 5 + 2,
    Datatype.UINT8: 3 + 2,
    Datatype.INT8: 4 + 2,
    Datatype.UINT16: 5 + 2,
    Datatype.INT16: 6 + 2,
    Datatype.UINT32: 10 + 2,
    Datatype.INT32: 11 + 2,
    Datatype.UINT64: 20 + 2,
    Datatype.INT64: 20 + 2,
    # Many encoders know only double and write a float's value in full: -1.1754943508222875e-38.
    Datatype.FP16: 24 + 2,
    Datatype.BF16: 24 + 2,
    Datatype.FP32: 24 + 2,
    Datatype.FP64: 24 + 2,
}

_BRACKETS = 4
"""Bytes of `[], ` around each nested array."""

_TENSOR_BYTES = 256
"""Bytes around the values of one tensor of one row: Open Inference names shape and datatype, typed JSON the field."""

_ENVELOPE_BYTES = 64 * 1024
"""Bytes around all rows: ids, parameters, gRPC and HTTP framing."""


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """The operator's side of the limits: `ceiling_bytes` for any body; `timeout_s` for a whole prediction."""

    ceiling_bytes: int = 67_174_400
    timeout_s: float = 30.0

    def of(self, contracts: Iterable[Contract]) -> ModelLimits:
        """The limits of a line whose versions answer these contracts."""
        needs = [need_bytes(contract) for contract in contracts]
        known = [need for need in needs if need is not None]
        if len(known) < len(needs) or not known or max(known) >= self.ceiling_bytes:
            return ModelLimits(self.ceiling_bytes, self.timeout_s, CEILING_FLAG)
        if max(known) <= FLOOR_BYTES:
            least = min(FLOOR_BYTES, self.ceiling_bytes)
            return ModelLimits(least, self.timeout_s, f"the least limit of any model, within `{CEILING_FLAG}`")
        return ModelLimits(max(known), self.timeout_s, "what the model's largest batch needs as JSON")


def need_bytes(contract: Contract) -> int | None:
    """Bytes of the largest request or answer as JSON text; None when the contract does not bound it."""
    sides = [_side_bytes(tensors, contract.max_rows) for tensors in (contract.takes, contract.gives)]
    bounded = [side for side in sides if side is not None]
    return max(bounded) if len(bounded) == len(sides) else None


def _side_bytes(tensors: Iterable[TensorSpec], rows: int) -> int | None:
    row = 0
    for tensor in tensors:
        if tensor.datatype is Datatype.BYTES or DYNAMIC in tensor.shape:
            return None
        row += _TENSOR_BYTES + len(tensor.name) + _values_bytes(tensor)
    return _ENVELOPE_BYTES + rows * row


def _values_bytes(tensor: TensorSpec) -> int:
    # Every array of the nesting but the innermost level's values: 1 + d0 + d0*d1 + ...
    arrays = sum(math.prod(tensor.shape[:depth]) for depth in range(len(tensor.shape)))
    return math.prod(tensor.shape) * _TEXT_BYTES[tensor.datatype] + arrays * _BRACKETS
