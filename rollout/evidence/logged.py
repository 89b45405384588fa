"""One prediction as Envoy's access log tells of it, without anything that names its caller.

Made by the gateway's access log service, which hashes the caller at once; read by `rollout.evidence.callers` and
`rollout.evidence.history`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import blake2b

from rollout.ports import Outcome


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """`latency_us`: from the caller's last byte in to the first byte out; None where nothing was answered well.

    `caller` is a `CallerHash` of who sent it where `sticky`; otherwise of the request's own id, since an anonymous
    request is its own caller.
    """

    model: str
    version: int
    outcome: Outcome
    latency_us: float | None
    caller: int
    sticky: bool

    @property
    def half(self) -> int:
        """0 or 1: everything of one caller is in the same half."""
        return self.caller & 1


class CallerHash:
    """64 bits of a caller's id, keyed with a secret of this process that is never written: no list of user ids can be
    tried against what is kept, and nothing of a caller outlives the process."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._keyed = blake2b(key=secret or secrets.token_bytes(32), digest_size=8)

    def __call__(self, model: str, caller: str) -> int:
        """The same caller of two models is two: what fails on one says nothing of the other."""
        keyed = self._keyed.copy()
        keyed.update(f"{model}/{caller}".encode(errors="replace"))
        return int.from_bytes(keyed.digest(), "big")
