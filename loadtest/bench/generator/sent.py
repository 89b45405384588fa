"""What a process has sent; apart from `send`, whose import turns the standard library's sockets into greenlets' own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sent:
    """`thread_s` is CPU of the sending thread, `process_s` of the whole process: gRPC has threads of its own."""

    requests: int
    failed: int
    seconds: float
    thread_s: float
    process_s: float
