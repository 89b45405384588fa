"""What `penstock up` and `penstock down` do once their flags are read: run, tell a person, end on a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adapters.server import ServerError
from gateway.envoy.ads import PublishFailed
from gateway.settings import Settings, is_loopback
from gateway.stack.envoy import EnvoyUnavailable
from gateway.stack.lock import AlreadyRunning
from gateway.stack.ports import PortInUse
from gateway.stack.process import StartFailed
from gateway.stack.up import Stack, StackFailed, down, stack

_EXPECTED = (AlreadyRunning, PortInUse, EnvoyUnavailable, ServerError, StartFailed, StackFailed, PublishFailed, OSError)
"""What can keep the stack from coming up through no defect of ours: told without a stack trace."""


def run_up(settings: Settings) -> int:
    """Run the stack until SIGINT or SIGTERM; the exit status."""
    console = Console(highlight=False)
    _log_to(settings.log_dir / "control.log")
    if not is_loopback(settings.operator_host):
        console.print(
            f"[bold yellow]warning[/]: the operators' port {settings.operator_host}:{settings.operator_port} can be "
            "reached from the network and has no authentication: whoever reaches it can replace your models"
        )
    try:
        return asyncio.run(_up(settings, console))
    except _EXPECTED as error:
        console.print("[bold red]penstock up failed[/]:", escape(str(error)), soft_wrap=True)
        return 1


def run_down(settings: Settings) -> int:
    """End what a killed stack left; the exit status."""
    console = Console(highlight=False)
    try:
        ended = asyncio.run(down(settings, console.print))
    except AlreadyRunning as error:
        console.print(f"{error} (Ctrl-C or SIGTERM ends it with all its parts)", markup=False, soft_wrap=True)
        return 1
    console.print(f"{ended} processes ended" if ended else "nothing was left running")
    return 0


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
