"""Every setting of the embedded stack, with its unit, its default and why that default.

Filled from the command line by `gateway.cli.stack`; nothing else in the gateway reads flags or the environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from adapters.server import Address
from adapters.triton.settings import ModelBackend


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one `penstock up`."""

    data_dir: Path
    """Everything that lasts: database, artefacts, the servers' repository, logs, ports, pids."""

    host: str = "127.0.0.1"
    """Address of the callers' port. Loopback, so that a first try exposes nothing."""

    port: int = 8080
    """Callers' port: typed gRPC, JSON and Open Inference Protocol, HTTP/1.1 and h2c."""

    operator_host: str = "127.0.0.1"
    """Address of the operators' port. It has no authentication yet: open it to a network only behind one."""

    operator_port: int = 8090
    """Operators' port: management API, /metrics, /healthz, /readyz."""

    lease_ttl_s: float = 30.0
    """Seconds after which canary traffic returns to the stable version when the controller stops renewing.
    Long enough to restart a control plane without touching a rollout, short enough for an unattended canary."""

    sticky_header: str = "x-user-id"
    """Requests with the same value of this header stay on the same version while weights rise."""

    allowed_origins: tuple[str, ...] = ()
    """Web sites whose pages may call from a browser; `*` is any. None, so that a page of any site cannot call what its
    reader can reach."""

    max_body_bytes: int = 67_174_400
    """Largest request or response body of any model: 64 MiB and 64 KiB for the framing around one. A model's own limit
    is what its largest batch needs (`gateway.limits`), and never above this."""

    max_artefact_bytes: int = 4 * 1024**3
    """Largest model file taken by a deployment."""

    prediction_timeout_s: float = 30.0
    """A whole prediction, retries included."""

    triton: Address | None = None
    """gRPC address of a Triton that somebody else runs; None starts the embedded one."""

    triton_http: Address | None = None
    """HTTP address of that Triton; by default its gRPC port less one, as Triton's own defaults are."""

    triton_backend: ModelBackend = ModelBackend.ONNXRUNTIME
    """Backend that serves ONNX files on that Triton: `onnxruntime`, or `python` where only that is installed."""

    adopt_all: bool = False
    """Whether models that appear in the server's repository get an API by themselves. Off, because a shared server may
    hold models that are nobody's business here."""

    mirror_max_share: float = 100.0
    """Percent of a model's requests that a shadow step may copy to the mirror evaluator, whatever its rollout asks for;
    0 turns mirroring off. Each copy is asked of both versions, at most two at a time."""

    mirror_sample_bytes: int = 256 * 1024**2
    """What the evaluator's sample of compared requests may hold on disk; the oldest goes first. 0 keeps none."""

    envoy_concurrency: int = 1
    """Envoy's worker threads. One carries some 20,000 small predictions a second; raise it with cores to spare."""

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def sample_dir(self) -> Path:
        """Parquet files of mirrored requests (`rollout.evidence.mirror.sample`)."""
        return self.data_dir / "mirror"

    @property
    def database(self) -> Path:
        return self.data_dir / "penstock.db"

    @property
    def exposed(self) -> bool:
        """Whether the operators' port can be reached from another machine."""
        return not is_loopback(self.operator_host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
