"""What a call says beside its inputs, and what a client says in every call. The same over HTTP and gRPC."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from penstock_client.retry import Retries

DEFAULT_TIMEOUT_S = 10.0
"""Long enough for a slow model, short enough for a person who waits."""


class Call(TypedDict, total=False):
    """Keywords of `predict`. What is left out is the client's own."""

    version: int | None
    """Pins the version that answers."""
    major: int
    """The model's API to call, where it has several: 1 unless it says otherwise."""
    user_id: str | None
    """Names the caller: during a rollout, one user stays on one version."""
    request_id: str | None
    """Names the call, for feedback and for repeats; made by the client when it is left out."""
    timeout_s: float | None
    """Seconds for the whole call, repeats included."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How to trust the gateway and how to be known to it: paths of PEM files.

    Without `ca` the usual roots are trusted. `certificate` and `key` are the caller's own, for mutual TLS.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate: give both or neither")


class Given(TypedDict, total=False):
    """Keywords of a client's constructor: the fields of `Settings`."""

    user_id: str | None
    """Names the caller in every call that does not name another."""
    timeout_s: float
    """Seconds for a whole call, repeats included."""
    retries: Retries
    """Which failures are repeated; `Retries(attempts=1)` for none."""
    tls: Tls | None
    """Whom to trust, where it is not the usual roots."""
    headers: Mapping[str, str]
    """Go with every call: credentials, say."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One client's own part of every call; `Given` explains the fields."""

    user_id: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    retries: Retries = field(default_factory=Retries)
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def options(self, call: Call) -> Options:
        """The options of one call: what it says itself, over what the client says."""
        user_id, timeout_s = call.get("user_id"), call.get("timeout_s")
        return Options(
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            version=call.get("version"),
            major=call.get("major", 1),
            user_id=self.user_id if user_id is None else user_id,
            request_id=call.get("request_id") or str(uuid.uuid4()),
            extra_headers=self.headers,
        )


@dataclass(frozen=True, slots=True)
class Options:
    """`timeout_s`: seconds for the whole call. `request_id` stays the same when the call is repeated."""

    timeout_s: float
    request_id: str
    version: int | None = None
    major: int = 1
    user_id: str | None = None
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        """The headers of the call, for HTTP and gRPC alike."""
        found = {
            "x-penstock-version": None if self.version is None else str(self.version),
            "x-user-id": self.user_id,
            "x-request-id": self.request_id,
        }
        named = {name: value for name, value in found.items() if value is not None}
        return {**{name.lower(): value for name, value in self.extra_headers.items()}, **named}

    def http_headers(self, left_s: float) -> dict[str, str]:
        """With the deadline too, so that the gateway stops working when the caller stops waiting."""
        return {
            **self.headers(),
            "content-type": "application/json",
            "grpc-timeout": f"{max(1, math.ceil(left_s * 1000))}m",
        }
