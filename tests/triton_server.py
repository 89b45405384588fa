"""A real Triton for tests: the embedded one, started on free ports and stopped by its process id."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.server import Address
from adapters.triton.embedded import EmbeddedTriton

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class RunningTriton:
    """Addresses and folders of a Triton that is live. `log` holds everything it printed."""

    grpc: Address
    http: Address
    metrics: Address
    repository: Path
    log: Path
    pid: int


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def triton_server(folder: Path, *, load_at_start: Sequence[str] = ()) -> Iterator[RunningTriton]:
    """Start the embedded Triton with its repository, backends and log under `folder`, and stop it at the end."""
    embedded = EmbeddedTriton.find()
    repository = folder / "repository"
    repository.mkdir(parents=True, exist_ok=True)
    grpc, http, metrics = (Address("127.0.0.1", port) for port in free_ports(3))
    command = embedded.command(
        repository=repository,
        backends=embedded.prepare(folder / "backends"),
        grpc=grpc,
        http=http,
        metrics=metrics,
        load_at_start=load_at_start,
    )
    log = folder / "triton.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=embedded.environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_live(process, http, log)
        yield RunningTriton(grpc, http, metrics, repository, log, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_live(process: subprocess.Popen[bytes], http: Address, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{http}/v2/health/live", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            try:
                # A process that ends is noticed at once; otherwise this is the pause between two looks.
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
    raise RuntimeError(f"Triton did not become live; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
