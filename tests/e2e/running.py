"""`penstock up` as a user starts it: a process of its own with real Envoy and Triton on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.triton_server import free_ports

COMMAND = (sys.executable, "-m", "gateway.cli")
STOP_S = 60.0


class Penstock:
    """One data directory and the control plane on it, which can be killed and started again."""

    def __init__(self, data_dir: Path, *, lease_ttl_s: float = 4.0, more_flags: Sequence[str] = ()) -> None:
        self.data_dir = data_dir
        self.port, self.operator_port = free_ports(2)
        self.lease_ttl_s = lease_ttl_s
        self._more_flags = more_flags
        self.said: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    @property
    def operators(self) -> str:
        return f"http://127.0.0.1:{self.operator_port}"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start and return when it says "ready"."""
        self._process = subprocess.Popen(
            [*COMMAND, "up", *self.flags()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready), daemon=True)
        self._reader.start()
        assert ready.wait(300), "penstock up did not become ready:\n" + "\n".join(self.said)
        assert self._process.poll() is None, "penstock up ended:\n" + "\n".join(self.said)

    def flags(self) -> list[str]:
        return [
            *("--data-dir", str(self.data_dir)),
            *("--port", str(self.port)),
            *("--operator-port", str(self.operator_port)),
            *("--lease-ttl", str(self.lease_ttl_s)),
            *self._more_flags,
        ]

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout
        for line in process.stdout:
            self.said.append(line.rstrip())
            if line.strip() == "ready":
                ready.set()
        ready.set()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the control plane alone."""
        assert self._process
        self._process.kill()
        self._ended()

    def stop(self) -> int:
        """A clean stop; the exit status."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._ended()

    def _ended(self) -> int:
        assert self._process
        assert self._reader
        status = self._process.wait(STOP_S)
        self._reader.join(STOP_S)
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None
        return status

    def cli(self, *arguments: str, json_output: bool = False) -> subprocess.CompletedProcess[str]:
        """Run another command of the CLI against this stack."""
        flags = ["--server", self.operators, "--gateway", self.url, *(["--json"] if json_output else [])]
        return subprocess.run(
            [*COMMAND, *flags, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        )

    def deploy(self, name: str, artefact: bytes, **query: Any) -> list[dict[str, Any]]:
        """Deploy by the management API and wait for its end; every event of it."""
        response = httpx.post(
            f"{self.operators}/api/v1/models/{name}/versions", content=artefact, params=query, timeout=120
        )
        response.raise_for_status()
        return [json.loads(line) for line in response.text.splitlines()]

    def deploy_live(self, name: str, artefact: bytes) -> None:
        events = self.deploy(name, artefact)
        assert events[-1]["stage"] in {"live", "unchanged"}, events

    def verb(self, name: str, verb: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        return httpx.post(f"{self.operators}/api/v1/models/{name}/rollout/{verb}", json=body, timeout=30)

    def rollout(self, name: str) -> dict[str, Any]:
        response = httpx.get(f"{self.operators}/api/v1/models/{name}/rollout", timeout=30)
        assert response.is_success, response.text
        value: dict[str, Any] = response.json()
        return value


@contextmanager
def running(data_dir: Path, *, lease_ttl_s: float = 4.0, more_flags: Sequence[str] = ()) -> Iterator[Penstock]:
    """A started stack; at the end of the block nothing of it is left, however the block ended."""
    penstock = Penstock(data_dir, lease_ttl_s=lease_ttl_s, more_flags=more_flags)
    try:
        penstock.start()
        yield penstock
    finally:
        status = penstock.stop()
        subprocess.run([*COMMAND, "down", "--data-dir", str(data_dir)], check=True, capture_output=True, timeout=60)
    assert status == 0, "\n".join(penstock.said)
