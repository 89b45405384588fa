"""A process from /proc: what its threads used, how long they waited for a core that others had, and its memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class NoAccounting(Exception):
    """The kernel does not say what a thread used."""


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """`used_ns`: on a core. `waited_ns`: ready to run while another process had the core."""

    used_ns: int
    waited_ns: int

    def __add__(self, other: ThreadTime) -> ThreadTime:
        return ThreadTime(self.used_ns + other.used_ns, self.waited_ns + other.waited_ns)

    def __sub__(self, other: ThreadTime) -> ThreadTime:
        return ThreadTime(self.used_ns - other.used_ns, self.waited_ns - other.waited_ns)


def parse_schedstat(text: str) -> ThreadTime:
    """`/proc/<pid>/task/<tid>/schedstat`: nanoseconds on a core, nanoseconds waited, time slices (proc(5))."""
    used, waited, _ = text.split()
    return ThreadTime(int(used), int(waited))


def process_time(pid: int) -> ThreadTime:
    """Sum over all threads of a process. Raises NoAccounting.

    schedstat rather than utime + stime: the same time in nanoseconds instead of ticks of 10 ms.
    """
    total = ThreadTime(0, 0)
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += parse_schedstat((task / "schedstat").read_text())
    except OSError as error:
        raise NoAccounting(f"no CPU time of process {pid}: {error}. Needs Linux with CONFIG_SCHED_INFO") from error
    return total


def resident_bytes(pid: int) -> int:
    """Memory of a process, shared pages included."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most that `resident_bytes` ever was."""
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
