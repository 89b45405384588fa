"""`penstock up` and `penstock down`: the embedded stack from the command line."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adapters.server import Address, ServerError
from adapters.triton.settings import ModelBackend
from gateway.envoy.ads import PublishFailed
from gateway.settings import Settings, is_loopback
from gateway.stack.envoy import EnvoyUnavailable
from gateway.stack.lock import AlreadyRunning
from gateway.stack.ports import PortInUse
from gateway.stack.process import StartFailed
from gateway.stack.up import Stack, StackFailed, down, stack

DEFAULT_DATA_DIR = Path("penstock-data")
_DEFAULTS = Settings(data_dir=DEFAULT_DATA_DIR)
_EXPECTED = (AlreadyRunning, PortInUse, EnvoyUnavailable, ServerError, StartFailed, StackFailed, PublishFailed, OSError)

DataDir = Annotated[Path, typer.Option(help="Database, model files, logs and pids; made when missing.")]


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
        str, typer.Option(metavar="HOST:PORT", help="HTTP address of that Triton [default: its gRPC port less one].")
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
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Largest request or response body.")
    ] = _DEFAULTS.max_body_bytes,
    max_artefact_bytes: Annotated[int, typer.Option(min=1, help="Largest model file.")] = _DEFAULTS.max_artefact_bytes,
    prediction_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for a whole prediction.")
    ] = _DEFAULTS.prediction_timeout_s,
    envoy_concurrency: Annotated[
        int, typer.Option(min=1, help="Envoy's worker threads.")
    ] = _DEFAULTS.envoy_concurrency,
) -> None:
    """Start the gateway: Envoy, Triton and the control plane, until Ctrl-C.

    Everything listens on 127.0.0.1 unless told otherwise. Killed without warning, it leaves Envoy and Triton
    serving; the next `penstock up` on the same data directory takes them over, `penstock down` ends them.

    \b
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
        max_body_bytes=max_body_bytes,
        max_artefact_bytes=max_artefact_bytes,
        prediction_timeout_s=prediction_timeout,
        triton=_address(triton, "--triton") if triton else None,
        triton_http=_address(triton_http, "--triton-http") if triton_http else None,
        triton_backend=triton_backend,
        envoy_concurrency=envoy_concurrency,
    )
    console = Console(highlight=False)
    _log_to(settings.log_dir / "control.log")
    if not is_loopback(settings.operator_host):
        console.print(
            f"[bold yellow]warning[/]: the operators' port {settings.operator_host}:{settings.operator_port} can be "
            "reached from the network and has no authentication: whoever reaches it can replace your models"
        )
    try:
        code = asyncio.run(_up(settings, console))
    except _EXPECTED as error:
        console.print(f"[bold red]penstock up failed[/]: {error}", markup=True, soft_wrap=True)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


def down_command(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """End what a killed `penstock up` left running on a data directory."""
    console = Console(highlight=False)
    try:
        ended = asyncio.run(down(Settings(data_dir=data_dir.absolute()), console.print))
    except AlreadyRunning as error:
        console.print(f"{error} (Ctrl-C or SIGTERM ends it with all its parts)")
        raise typer.Exit(1) from error
    console.print(f"{ended} processes ended" if ended else "nothing was left running")


async def _up(settings: Settings, console: Console) -> int:
    """Run until a signal. A signal during the start undoes what was started."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    running = asyncio.create_task(_run(settings, console))
    interrupted = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, interrupted}, return_when=asyncio.FIRST_COMPLETED)
    interrupted.cancel()
    if not running.done():
        running.cancel()
    try:
        return await running
    except asyncio.CancelledError:
        return 0


async def _run(settings: Settings, console: Console) -> int:
    def say(line: str) -> None:
        console.print(f"[dim]{line}[/]", soft_wrap=True)

    async with stack(settings, say) as running:
        await running.wait_ready(say)
        console.print(_places(running))
        console.print("[bold green]ready[/]")
        await running.ended.wait()
    console.print(f"[bold red]a part of the control plane failed[/]; see {settings.log_dir / 'control.log'}")
    return 1


def _places(running: Stack) -> Table:
    settings, ports = running.settings, running.ports
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("callers", f"http://{settings.host}:{settings.port}", "typed gRPC, JSON, Open Inference Protocol")
    table.add_row("docs", f"http://{settings.host}:{settings.port}/docs", "one page per model, with a form to try it")
    table.add_row(
        "operators", f"http://{settings.operator_host}:{settings.operator_port}", "/api/v1, /metrics, /readyz"
    )
    table.add_row("envoy admin", f"http://127.0.0.1:{ports.envoy_admin}", "statistics, loopback only")
    table.add_row(
        "triton", f"{running.control.serving.server.grpc} (gRPC), {running.control.serving.server.http} (HTTP)"
    )
    table.add_row("data", str(settings.data_dir), "logs in logs/")
    return table


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _address(text: str, flag: str) -> Address:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise typer.BadParameter(f"expected HOST:PORT, received {text!r}", param_hint=flag)
    return Address(host.strip("[]"), int(port))
