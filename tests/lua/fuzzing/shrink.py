"""Makes a failing body small: bytes are taken away as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable


def shrunk(body: bytes, fails: Callable[[bytes], bool], *, most_tries: int = 5000) -> bytes:
    """The smallest body found that still fails: halves, then smaller spans down to single bytes are left out."""
    tries = 0
    span = max(len(body) // 2, 1)
    while span >= 1 and tries < most_tries:
        at, progress = 0, False
        while at < len(body) and tries < most_tries:
            candidate = body[:at] + body[at + span :]
            tries += 1
            if fails(candidate):
                body, progress = candidate, True
            else:
                at += span
        span = span if progress and span == 1 else span // 2
    return body
