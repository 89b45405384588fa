"""Keeps one process alive: adopt or start, restart with back-off, stop.

Used by `gateway.stack.up` for Envoy and Triton. Knows nothing of what the process does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from gateway.stack.process import ProcessId, StartFailed, start_detached, stop, tail, wait_exit

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 10.0
_STEADY_S = 30.0
"""A process that ran this long has recovered: its next restart starts at the first back-off again."""
_LOG_LIMIT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `inputs` are files whose content belongs to the configuration (Envoy's bootstrap)."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    inputs: tuple[Path, ...] = ()

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.argv, sorted(self.environment.items())]).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(slots=True)
class Supervisor:
    """One supervised process.

    `on_restart` is called after each restart (not after the first start), so that the owner can see to bringing the
    new process to the state of the old.
    """

    name: str
    command: Command
    pid_file: Path
    log: Path
    grace_s: float = 10.0
    on_restart: Callable[[], None] | None = None
    restarts: int = 0
    adopted: bool = False
    _process: ProcessId | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.alive else None

    def adoptable(self) -> bool:
        """Whether a process started earlier with the same configuration still runs."""
        running = ProcessId.load(self.pid_file)
        return running is not None and running.fingerprint == self.command.fingerprint

    async def clear(self) -> None:
        """End a process that was started earlier with another configuration."""
        running = ProcessId.load(self.pid_file)
        if running and running.fingerprint != self.command.fingerprint:
            await stop(running, grace_s=self.grace_s)

    async def start(self) -> None:
        """Adopt the running process, replace it when its configuration differs, or start one. Raises StartFailed."""
        await self.clear()
        running = ProcessId.load(self.pid_file)
        self.adopted = running is not None
        self._process = running
        if running is None:
            await self._spawn()
        self._task = asyncio.create_task(self._watch(), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """End the process, also one whose start was interrupted; none there is no error."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        process = self._process or ProcessId.load(self.pid_file)
        if process:
            await stop(process, grace_s=self.grace_s)
            self._process = None
        self.pid_file.unlink(missing_ok=True)

    async def _spawn(self) -> None:
        """Start the process. Cancelled half-way, it still gets to know the process that is being started."""
        launch = asyncio.create_task(self._launch())
        try:
            await asyncio.shield(launch)
        except asyncio.CancelledError:
            await asyncio.wait([launch])
            raise

    async def _launch(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".1.log"))
        process = await start_detached(
            self.command.argv,
            environment=self.command.environment,
            log=self.log,
            fingerprint=self.command.fingerprint,
        )
        process.save(self.pid_file)
        self._process = process

    async def _watch(self) -> None:
        backoff = _FIRST_BACKOFF_S
        while True:
            since = monotonic()
            if self._process:
                await wait_exit(self._process)
            if monotonic() - since > _STEADY_S:
                backoff = _FIRST_BACKOFF_S
            _log.warning("%s ended; restarting in %.1f s. The end of its log:\n%s", self.name, backoff, tail(self.log))
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
            try:
                await self._spawn()
            except StartFailed as error:
                self._process = None
                _log.error("%s could not be restarted: %s", self.name, error)
                continue
            self.restarts += 1
            if self.on_restart:
                self.on_restart()


def leftovers(run_dir: Path) -> Sequence[tuple[str, ProcessId]]:
    """Processes that an earlier control plane on this data directory left running."""
    found = []
    for path in sorted(run_dir.glob("*.pid")):
        process = ProcessId.load(path)
        if process:
            found.append((path.stem, process))
    return found
