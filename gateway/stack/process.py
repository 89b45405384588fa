"""One process that outlives its starter: identity that survives pid reuse, start, wait, stop.

Linux only, as the embedded Envoy and Triton are: identity is pid and start time from /proc, waiting is a pidfd.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("detach.py")


class StartFailed(Exception):
    """A process could not be started or ended at once; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart from a later one with the same pid by its start time (clock ticks since boot).

    `fingerprint` is what it was started with; another fingerprint means another configuration.
    """

    pid: int
    started: int
    fingerprint: str

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def save(self, path: Path) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> ProcessId | None:
        """The process a pid file names, or None when there is none or it no longer lives."""
        try:
            value = json.loads(path.read_text())
            process = cls(int(value["pid"]), int(value["started"]), str(value["fingerprint"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return process if process.alive else None


def start_time(pid: int) -> int | None:
    """Start time in clock ticks since boot; None when there is no such process or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    state, started = fields[0], int(fields[19])
    return None if state in {"Z", "X"} else started


async def start_detached(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, fingerprint: str
) -> ProcessId:
    """Start `command` as a session of its own whose parent is init. Raises StartFailed."""
    launcher = await asyncio.create_subprocess_exec(
        sys.executable,
        "-S",
        "-E",
        str(_LAUNCHER),
        str(log),
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await launcher.communicate()
    if launcher.returncode != 0 or not out.strip().isdigit():
        raise StartFailed(f"{command[0]}: the launcher failed: {err.decode(errors='replace').strip()}")
    pid = int(out)
    started = start_time(pid)
    if started is None:
        raise StartFailed(f"{command[0]} ended at once; the end of {log}:\n{tail(log)}")
    return ProcessId(pid, started, fingerprint)


async def wait_exit(process: ProcessId) -> None:
    """Return when the process has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if not process.alive:
            return
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def stop(process: ProcessId, *, grace_s: float) -> None:
    """SIGTERM, then SIGKILL to its whole session after `grace_s`; returns when it is gone."""
    if not process.alive:
        return
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(wait_exit(process), grace_s)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await wait_exit(process)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log file, for error messages."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])
