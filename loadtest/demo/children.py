"""Child processes of the demo: started with a log file, stopped by pid, in a session of their own.

The session matters for Ctrl-C: the terminal interrupts the demo alone, and the demo then stops its children in order.
Used by `loadtest.demo.run`; what the children are is its business.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_S = 20.0
"""How long a child may take to end by itself after SIGTERM."""


class ChildFailed(Exception):
    """A child process ended when it should not have; the message carries the end of its log."""


class Child:
    """One running command, a context manager that ends it."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises ChildFailed when the process has ended."""
        if self._process.poll() is not None:
            raise ChildFailed(f"{self.name} ended by itself with status {self._process.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def stop(self) -> None:
        """Ask the process to end and wait for it; after STOP_S seconds end it. Harmless when it has ended already."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is over: between a child's start and the moment when somebody is there
    to end it, they would leave it running."""
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(each, lambda number, _frame: came.append(number)) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, handlers, strict=True):
            signal.signal(each, handler)
    if came:
        raise KeyboardInterrupt


def choose_port(preferred: int) -> int:
    """The preferred port of 127.0.0.1 if it is free, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def quiet_environment() -> dict[str, str]:
    """The environment for children: no colours in their logs, and no usage data sent to onnxruntime's makers."""
    return {**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1"}
