"""The stack's internal ports: chosen once per data directory, so that adopted processes still find each other."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path


class PortInUse(Exception):
    """Another program holds a port that Penstock needs."""


@dataclass(frozen=True, slots=True)
class InternalPorts:
    """Loopback ports that no caller and no operator talks to."""

    control_grpc: int
    control_http: int
    envoy_admin: int
    triton_grpc: int
    triton_http: int
    triton_metrics: int
    mirror: int

    @classmethod
    def remembered(cls, path: Path) -> InternalPorts | None:
        try:
            value = json.loads(path.read_text())
            return cls(**{field.name: int(value[field.name]) for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def choose(cls, path: Path) -> InternalPorts:
        """Free ports, remembered in `path`."""
        held = [socket.socket() for _ in fields(cls)]
        try:
            for one in held:
                one.bind(("127.0.0.1", 0))
            ports = cls(*(one.getsockname()[1] for one in held))
        finally:
            for one in held:
                one.close()
        path.write_text(json.dumps(asdict(ports), indent=2))
        return ports


def free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(host: str, port: int, *, flag: str) -> None:
    """Raise PortInUse, naming the flag that chooses another port, unless `port` can be listened on."""
    if not free(host, port):
        raise PortInUse(
            f"port {port} on {host} is in use by another program; stop that program or choose another port with {flag}"
        )
