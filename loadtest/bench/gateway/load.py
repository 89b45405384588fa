"""Load from h2load (nghttp2), which is many times cheaper per request than Envoy."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LONGEST_S = 180.0
"""A server that stopped answering must not hold up the bench for ever; turns last seconds."""


class ToolMissing(Exception):
    """A program the bench runs is not installed; the message says how to get it."""


class LoadFailed(Exception):
    """h2load did not run, or said something that cannot be read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`requests` in all, from `connections`, each with up to `streams` at a time (1 for HTTP/1.1)."""

    requests: int
    connections: int
    streams: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What h2load counted. `data_bytes` are bodies only."""

    seconds: float
    total: int
    succeeded: int
    status_2xx: int
    data_bytes: int

    @property
    def failed(self) -> int:
        return self.total - min(self.succeeded, self.status_2xx)


_PATTERNS = {
    "seconds": r"finished in ([0-9.]+(?:us|ms|s|m|h))",
    "total": r"requests: (\d+) total",
    "succeeded": r"requests: .* (\d+) succeeded",
    "status_2xx": r"status codes: (\d+) 2xx",
    "data_bytes": r"traffic: .* \((\d+)\) data",
}
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_h2load(text: str) -> LoadResult:
    """Read h2load's summary. Raises LoadFailed with the line that is missing."""
    found: dict[str, str] = {}
    for name, pattern in _PATTERNS.items():
        match = re.search(pattern, text)
        if match is None:
            raise LoadFailed(f"h2load's output has nothing like {pattern!r}; it said: {text.strip()[-500:]!r}")
        found[name] = match[1]
    number, unit = re.fullmatch(r"([0-9.]+)(\D+)", found.pop("seconds")).groups()  # type: ignore[union-attr]  # matched above
    return LoadResult(seconds=float(number) * _UNITS[unit], **{name: int(value) for name, value in found.items()})


def require_tools() -> None:
    """Raise ToolMissing, naming the Debian package, for what is not installed."""
    packages = {"h2load": "nghttp2-client", "taskset": "util-linux"}
    missing = [package for tool, package in packages.items() if shutil.which(tool) is None]
    if missing:
        raise ToolMissing(f"this bench needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")


def h2load_version() -> str:
    return subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def run_load(
    url: str,
    body: Path,
    headers: Sequence[tuple[str, str]],
    shape: Shape,
    *,
    http1: bool,
    cpu: int,
    times: Path | None = None,
) -> LoadResult:
    """POST `body` to `url` as often as `shape` says, from one thread on core `cpu`. Raises LoadFailed.

    `times` gets a line per request: when it started, its status, microseconds until its end.
    """
    command = ["taskset", "-c", str(cpu), "h2load", "-t", "1", "-n", str(shape.requests), "-c", str(shape.connections)]
    command += ["--h1"] if http1 else ["-m", str(shape.streams)]
    command += [] if times is None else ["--log-file", str(times)]
    command += ["-d", str(body), *(f"--header={name}: {value}" for name, value in headers), url]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"h2load had no answer to all of {shape.requests} requests after {_LONGEST_S:g} s") from error
    if done.returncode != 0:
        raise LoadFailed(f"h2load ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return parse_h2load(done.stdout)
