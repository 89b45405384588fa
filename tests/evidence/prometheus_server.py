"""The real Prometheus on a free port, scraping one target every second."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.triton_server import free_ports

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="the prometheus binary is not installed (apt-get install prometheus)"
)


@contextmanager
def prometheus(folder: Path, target: str, *, path: str = "/metrics") -> Iterator[str]:
    """The base URL of a Prometheus that scrapes `target` (host:port)."""
    binary = shutil.which("prometheus")
    assert binary
    (port,) = free_ports(1)
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: tested, metrics_path: {path}, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(url)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/-/ready", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "Prometheus did not become ready"
        time.sleep(0.05)
