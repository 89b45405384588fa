"""`penstock up` and `penstock down`: the embedded stack from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapters.server import Address
from adapters.triton.settings import ModelBackend
from gateway.settings import Settings

DEFAULT_DATA_DIR = Path("penstock-data")
_DEFAULTS = Settings(data_dir=DEFAULT_DATA_DIR)

DataDir = Annotated[Path, typer.Option(help="Database, model files, logs and pids; made when missing.")]


def add_to(app: typer.Typer) -> None:
    app.command("up")(up_command)
    app.command("down")(down_command)


def up_command(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address of the callers' port.")] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(help="Callers' port: gRPC, JSON, Open Inference Protocol.")] = _DEFAULTS.port,
    operator_host: Annotated[
        str, typer.Option(help="Address of the operators' port; it has no authentication yet.")
    ] = _DEFAULTS.operator_host,
    operator_port: Annotated[
        int, typer.Option(help="Operators' port: management API, /metrics, /readyz.")
    ] = _DEFAULTS.operator_port,
    triton: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="gRPC address of a Triton to use instead of the embedded one.")
    ] = "",
    triton_http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="HTTP address of that Triton; by default its gRPC port less one.")
    ] = "",
    triton_backend: Annotated[
        ModelBackend, typer.Option(help="Backend that serves ONNX files on that Triton.")
    ] = _DEFAULTS.triton_backend,
    lease_ttl: Annotated[
        float, typer.Option(min=2.0, help="Seconds until canary traffic returns to stable when the controller is gone.")
    ] = _DEFAULTS.lease_ttl_s,
    sticky_header: Annotated[
        str, typer.Option(help="Callers with the same value stay on the same version.")
    ] = _DEFAULTS.sticky_header,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web site whose pages may call from a browser (https://app.example); * is any. Repeatable."),
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Largest body of any model; its own limit is what its largest batch needs.")
    ] = _DEFAULTS.max_body_bytes,
    max_artefact_bytes: Annotated[int, typer.Option(min=1, help="Largest model file.")] = _DEFAULTS.max_artefact_bytes,
    prediction_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for a whole prediction.")
    ] = _DEFAULTS.prediction_timeout_s,
    adopt_all: Annotated[
        bool,
        typer.Option(
            "--adopt-all",
            envvar="PENSTOCK_ADOPT_ALL",
            help="Give an API to every model that appears in the server's repository.",
        ),
    ] = _DEFAULTS.adopt_all,
    mirror_max_share: Annotated[
        float,
        typer.Option(
            min=0.0, max=100.0, help="Percent of requests that a shadow step may copy to the evaluator; 0 turns it off."
        ),
    ] = _DEFAULTS.mirror_max_share,
    mirror_sample_bytes: Annotated[
        int, typer.Option(min=0, help="Most that the sample of mirrored requests holds on disk; 0 keeps none.")
    ] = _DEFAULTS.mirror_sample_bytes,
    envoy_concurrency: Annotated[
        int, typer.Option(min=1, help="Envoy's worker threads.")
    ] = _DEFAULTS.envoy_concurrency,
) -> None:
    """Start the gateway: Envoy, Triton and the control plane, until Ctrl-C.

    Everything listens on 127.0.0.1 unless told otherwise. Killed without warning, it leaves Envoy and Triton
    serving; the next `penstock up` on the same data directory takes them over, `penstock down` ends them.

    Examples:

      penstock up

      penstock up --data-dir /var/lib/penstock --host 0.0.0.0

      penstock up --triton gpu-box:8001
    """
    settings = Settings(
        data_dir=data_dir.absolute(),
        host=host,
        port=port,
        operator_host=operator_host,
        operator_port=operator_port,
        lease_ttl_s=lease_ttl,
        sticky_header=sticky_header.lower(),
        allowed_origins=tuple(allow_origin or ()),
        max_body_bytes=max_body_bytes,
        max_artefact_bytes=max_artefact_bytes,
        prediction_timeout_s=prediction_timeout,
        triton=_address(triton, "--triton") if triton else None,
        triton_http=_address(triton_http, "--triton-http") if triton_http else None,
        triton_backend=triton_backend,
        adopt_all=adopt_all,
        mirror_max_share=mirror_max_share,
        mirror_sample_bytes=mirror_sample_bytes,
        envoy_concurrency=envoy_concurrency,
    )
    # Here, because what it imports costs half a second that the other commands need not pay.
    from gateway.stack.run import run_up

    raise typer.Exit(run_up(settings))


def down_command(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """End what a killed `penstock up` left running on a data directory.

    Example: penstock down
    """
    from gateway.stack.run import run_down

    raise typer.Exit(run_down(Settings(data_dir=data_dir.absolute())))


def _address(text: str, flag: str) -> Address:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise typer.BadParameter(f"expected HOST:PORT, received {text!r}", param_hint=flag)
    return Address(host.strip("[]"), int(port))
