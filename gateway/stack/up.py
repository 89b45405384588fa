"""`penstock up`: the control plane in this process, Envoy and Triton beside it, from start to clean stop.

Order of the start: nothing is changed before the ports and binaries are known to be there; versions are loaded before
Envoy hears of them; "ready" is said when a prediction could be served. Where an Envoy goes on from before a crash, its
rollouts are led before the HTTP ports open: those take longer than all the rest. Order of the stop: no new work, then
Envoy, then Triton.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.server import Address, InferenceServer
from adapters.triton.client import Triton
from adapters.triton.embedded import EmbeddedTriton
from adapters.triton.settings import TritonSettings
from gateway.control import LOOPBACK, Control, build, envoy_settings
from gateway.envoy.yaml_config import bootstrap_yaml
from gateway.settings import Settings
from gateway.stack.envoy import envoy_command
from gateway.stack.evaluator import EvaluatorKeeper, evaluator_command
from gateway.stack.lock import DataDirLock
from gateway.stack.ports import InternalPorts, free, require_free
from gateway.stack.process import stop, tail
from gateway.stack.supervisor import Command, Supervisor, leftovers

if TYPE_CHECKING:
    from gateway.front import Front

_log = logging.getLogger(__name__)

_START_S = 60.0
"""Longest wait for Triton or Envoy to answer after their start."""
_POLL_S = 0.1
_GRACE_S = 10.0
"""Longest wait for a process to end by itself: requests in flight finish in it."""

Say = Callable[[str], None]


class StackFailed(Exception):
    """The stack did not come up; the message says which part and why."""


@dataclass(slots=True)
class Stack:
    """A running stack. `ended` is set when one of its own tasks died, which none ever should."""

    settings: Settings
    ports: InternalPorts
    control: Control
    processes: Sequence[Supervisor]
    ended: asyncio.Event

    async def wait_ready(self, say: Say) -> None:
        """Return when a prediction could be served, or after a while with what is missing."""
        told = ""
        deadline = asyncio.get_running_loop().time() + _START_S
        while True:
            report = await self.control.health.report()
            if report.ready and not report.missing:
                say(report.message)
                return
            if report.message != told:
                told = report.message
                say(told)
            if asyncio.get_running_loop().time() > deadline:
                # Not an end: a version that does not load must not take the others down.
                say(f"still {report.message}; going on, see {self.settings.log_dir}")
                return
            await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def stack(settings: Settings, say: Say) -> AsyncIterator[Stack]:
    """The stack, up while the block runs. `say` takes one line of progress for a person.

    Raises AlreadyRunning, PortInUse, EmbeddedUnavailable, EnvoyUnavailable, StartFailed, StackFailed.
    """
    for folder in (settings.data_dir, settings.run_dir, settings.log_dir):
        folder.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as parts:
        parts.enter_context(DataDirLock(settings.run_dir / "lock"))
        ports, envoy, triton = await _processes(settings)
        control = build(settings, ports, _server(settings, ports))
        parts.push_async_callback(control.close)
        control.registry.fail_interrupted()

        lead_first = envoy.adoptable()
        if not lead_first:
            # At once, so that /readyz tells what a start waits for.
            await parts.enter_async_context(_front(settings, ports, control))

        if triton:
            triton.on_restart = control.upkeep.nudge
            # Before the start, so that whatever interrupts it leaves no process behind.
            parts.push_async_callback(triton.stop)
            await _start(triton, say)
        await _server_live(control, triton, say)
        await control.serving.reconcile(unload=False)

        # Only now: an Envoy that is connected is given what is loaded.
        control.data_plane.load(control.routing.state())
        # What was read so far stays. With thousands of models the collector would else walk through it for half a
        # second at a time, and every weight that is renewed meanwhile waits.
        gc.collect()
        gc.freeze()
        control.grpc_server.add_insecure_port(f"{LOOPBACK}:{ports.control_grpc}")
        await control.grpc_server.start()
        parts.push_async_callback(control.grpc_server.stop, grace=0)
        parts.push_async_callback(envoy.stop)
        await _start(envoy, say)
        if not lead_first:
            await control.ads.wait_settled(timeout_s=_START_S)

        ended = asyncio.Event()
        keeper = _evaluator(settings, ports, control)
        parts.push_async_callback(keeper.stop)
        work_of = {
            "controller": control.controller.run(),
            "upkeep": control.upkeep.run(),
            "evaluator": keeper.run(),
        }
        if control.adoption is not None:
            work_of["adoption"] = control.adoption.run()
        for name, work in work_of.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(_reports(name, ended))
            parts.push_async_callback(_cancel, task)
        if lead_first:
            # Envoy looks for us once a second at most. The first reading of its statistics need not wait for that, nor
            # may anything slow disturb it.
            await control.controller.turned()
            await parts.enter_async_context(_front(settings, ports, control))
            await control.ads.wait_settled(timeout_s=_START_S)
        try:
            yield Stack(settings, ports, control, [p for p in (envoy, triton) if p], ended)
        finally:
            say("stopping")


async def down(settings: Settings, say: Say) -> int:
    """End what a killed control plane left running on this data directory; how many processes there were."""
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with DataDirLock(settings.run_dir / "lock"):
        found = leftovers(settings.run_dir)
        for name, process in found:
            say(f"stopping {name} (pid {process.pid})")
            await stop(process, grace_s=_GRACE_S)
            (settings.run_dir / f"{name}.pid").unlink(missing_ok=True)
    return len(found)


async def _processes(settings: Settings) -> tuple[InternalPorts, Supervisor, Supervisor | None]:
    """What to start, on ports that are free or held by our own processes of an earlier run.

    Raises PortInUse, EmbeddedUnavailable.
    """
    embedded = EmbeddedTriton.find() if settings.triton is None else None
    path = settings.run_dir / "ports.json"
    ports = InternalPorts.remembered(path) or InternalPorts.choose(path)
    for attempt in range(2):
        envoy, triton = _supervisors(settings, ports, embedded)
        if embedded and triton and not triton.adoptable():
            await asyncio.to_thread(embedded.check)
        for process in filter(None, (envoy, triton)):
            await process.clear()
        if _usable(ports, envoy, triton):
            break
        assert attempt == 0, "freshly chosen ports are free"
        # Another program took one of them while we were away: move, which replaces the processes too.
        ports = InternalPorts.choose(path)
    require_free(settings.operator_host, settings.operator_port, flag="--operator-port")
    if not envoy.adoptable():
        require_free(settings.host, settings.port, flag="--port")
    return ports, envoy, triton


def _usable(ports: InternalPorts, envoy: Supervisor, triton: Supervisor | None) -> bool:
    needed = [ports.control_grpc, ports.control_http]
    if not envoy.adoptable():
        needed.append(ports.envoy_admin)
    if triton and not triton.adoptable():
        needed += [ports.triton_grpc, ports.triton_http, ports.triton_metrics]
    return all(free(LOOPBACK, port) for port in needed)


def _supervisors(
    settings: Settings, ports: InternalPorts, embedded: EmbeddedTriton | None
) -> tuple[Supervisor, Supervisor | None]:
    bootstrap = settings.run_dir / "envoy.yaml"
    bootstrap.write_text(bootstrap_yaml(envoy_settings(settings, ports)))
    envoy = Supervisor(
        name="envoy",
        command=envoy_command(bootstrap, concurrency=settings.envoy_concurrency),
        pid_file=settings.run_dir / "envoy.pid",
        log=settings.log_dir / "envoy.log",
        grace_s=_GRACE_S,
    )
    triton = None
    if embedded:
        triton = Supervisor(
            name="triton",
            command=_triton_command(settings, ports, embedded),
            pid_file=settings.run_dir / "triton.pid",
            log=settings.log_dir / "triton.log",
            grace_s=_GRACE_S,
        )
    return envoy, triton


@contextlib.asynccontextmanager
async def _front(settings: Settings, ports: InternalPorts, control: Control) -> AsyncIterator[None]:
    """The operators' port and the internal one for documents and feedback, open while the block runs."""
    # Beside the event loop, because it takes as long as all the rest: rollouts are led meanwhile.
    made = await asyncio.to_thread(_make_front, settings, control)
    async with made.serving(settings, ports):
        yield


def _make_front(settings: Settings, control: Control) -> Front:
    from gateway.front import front

    return front(control, settings)


def _evaluator(settings: Settings, ports: InternalPorts, control: Control) -> EvaluatorKeeper:
    process = Supervisor(
        name="evaluator",
        command=evaluator_command(
            listen=Address(LOOPBACK, ports.mirror),
            backend=control.serving.server.grpc,
            sample=settings.sample_dir,
            sample_bytes=settings.mirror_sample_bytes,
        ),
        pid_file=settings.run_dir / "evaluator.pid",
        log=settings.log_dir / "evaluator.log",
        grace_s=2.0,
    )
    return EvaluatorKeeper(
        process,
        wanted=lambda: any(control.routing.mirrors().values()),
        silence_s=lambda: control.mirror.silence_s,
    )


def _triton_command(settings: Settings, ports: InternalPorts, embedded: EmbeddedTriton) -> Command:
    repository = _repository(settings)
    repository.mkdir(exist_ok=True)
    backends = embedded.prepare(settings.run_dir / "backends")
    argv = embedded.command(
        repository=repository,
        backends=backends,
        grpc=Address(LOOPBACK, ports.triton_grpc),
        http=Address(LOOPBACK, ports.triton_http),
        metrics=Address(LOOPBACK, ports.triton_metrics),
    )
    base = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    return Command(argv=tuple(argv), environment=embedded.environment(base))


def _repository(settings: Settings) -> Path:
    return settings.data_dir / "repository"


def _server(settings: Settings, ports: InternalPorts) -> InferenceServer:
    if settings.triton:
        http = settings.triton_http or Address(settings.triton.host, settings.triton.port - 1)
        backend = TritonSettings(backend=settings.triton_backend)
        return Triton(name="triton", grpc=settings.triton, http=http, settings=backend)
    return Triton(
        name="triton",
        grpc=Address(LOOPBACK, ports.triton_grpc),
        http=Address(LOOPBACK, ports.triton_http),
        repository=_repository(settings),
    )


async def _start(process: Supervisor, say: Say) -> None:
    await process.start()
    say(f"{process.name} {'goes on' if process.adopted else 'started'} (pid {process.pid}, log {process.log})")


async def _server_live(control: Control, triton: Supervisor | None, say: Say) -> None:
    deadline = asyncio.get_running_loop().time() + _START_S
    server = control.serving.server
    while not await server.live():
        if asyncio.get_running_loop().time() > deadline:
            if triton:
                raise StackFailed(
                    f"Triton did not answer within {_START_S:g} s; the end of its log:\n{tail(triton.log)}"
                )
            raise StackFailed(f"the Triton at {server.grpc} does not answer: start it, or correct --triton")
        await asyncio.sleep(_POLL_S)
    say(f"inference server {server.name} answers at {server.grpc}")


def _reports(name: str, ended: asyncio.Event) -> Callable[[asyncio.Task[None]], None]:
    def done(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("the %s ended by itself", name, exc_info=task.exception())
            ended.set()

    return done


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
