"""CPU and memory of everything that a peer has started, found by a mark in the environment of its processes.

Some peers start dozens of processes, some of them in sessions of their own, so parents and groups do not tell them all;
and one (nginx) writes over its environment, so its first process and that one's children count as well.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "PENSTOCK_BENCH_PEER"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Tree:
    """All processes whose environment has `MARK` set to `mark`, and the process `first` with its descendants."""

    mark: str
    first: int

    def pids(self) -> list[int]:
        parents = {pid: _parent(pid) for pid in _processes()}
        family = {self.first} & parents.keys()
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return sorted(family | {pid for pid in parents if self._marked(pid)})

    def cpu_s(self) -> float:
        """User and system time of all of them, and of their children that have ended; seconds."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / _TICKS

    def memory_bytes(self) -> int:
        """Memory, shared pages counted once (proportional set size)."""
        return sum(_pss(pid) for pid in self.pids())

    def end(self, patience_s: float = 10.0) -> None:
        """Ask all of them to end, and end those that do not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + patience_s
            _signal(self.pids(), number)
            while (left := self.pids()) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not left:
                return

    def _marked(self, pid: int) -> bool:
        try:
            return f"{MARK}={self.mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
        except OSError:  # ended meanwhile, or somebody else's
            return False


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _parent(pid: int) -> int:
    return next(iter(_stat(pid)[1:2]), 0)


def _cpu_ticks(pid: int) -> int:
    return sum(_stat(pid)[11:15])  # utime stime cutime cstime


def _stat(pid: int) -> list[int]:
    """The numbers of /proc/<pid>/stat after the name (proc(5)), with 0 for the state; none for a process that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [0, *(int(field) for field in fields[1:])]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
