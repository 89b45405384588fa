"""Processes that outlive their starter: real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.stack.lock import AlreadyRunning, DataDirLock
from gateway.stack.ports import InternalPorts, PortInUse, require_free
from gateway.stack.process import ProcessId, StartFailed, start_detached, start_time, stop, wait_exit
from gateway.stack.supervisor import Command, Supervisor, leftovers

SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")
DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
)


async def started(tmp_path: Path, argv: tuple[str, ...] = SLEEPER) -> ProcessId:
    log = tmp_path / "it.log"
    process = await start_detached(argv, environment=dict(os.environ), log=log, fingerprint="f")
    while not log.exists() or "up" not in log.read_text():
        await asyncio.sleep(0.01)
    return process


async def test_a_detached_process_is_nobodys_child_and_stops_on_sigterm(tmp_path: Path) -> None:
    process = await started(tmp_path)
    parent = int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert parent != os.getpid()
    assert process.alive
    await stop(process, grace_s=10)
    assert not process.alive


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    process = await started(tmp_path, DEAF)
    await stop(process, grace_s=0.2)
    assert not process.alive


async def test_waiting_returns_when_the_process_ends(tmp_path: Path) -> None:
    process = await started(tmp_path)
    waiting = asyncio.create_task(wait_exit(process))
    await asyncio.sleep(0)
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(waiting, 10)


async def test_a_pid_file_is_believed_only_while_its_process_lives(tmp_path: Path) -> None:
    process = await started(tmp_path)
    path = tmp_path / "it.pid"
    process.save(path)
    assert ProcessId.load(path) == process
    ProcessId(process.pid, process.started + 1, "f").save(path)
    assert ProcessId.load(path) is None, "a reused pid must not be taken for the old process"
    await stop(process, grace_s=10)
    process.save(path)
    assert ProcessId.load(path) is None
    path.write_text("not json")
    assert ProcessId.load(path) is None
    assert start_time(process.pid) is None


async def test_a_program_that_is_not_there_is_reported_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    with suppress(StartFailed):
        await wait_exit(await start_detached(["/nonexistent/program"], environment={}, log=log, fingerprint="f"))
    assert "cannot start /nonexistent/program" in log.read_text()


async def test_the_supervisor_restarts_what_dies_and_tells_its_owner(tmp_path: Path) -> None:
    restarted = asyncio.Event()

    supervisor = Supervisor(
        name="sleeper",
        command=Command(SLEEPER, dict(os.environ)),
        pid_file=tmp_path / "sleeper.pid",
        log=tmp_path / "sleeper.log",
        on_restart=restarted.set,
    )
    await supervisor.start()
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(restarted.wait(), 20)
    second = supervisor.pid
    assert second not in {None, first}
    await supervisor.stop()
    assert second is not None
    assert start_time(second) is None
    assert leftovers(tmp_path) == []


async def test_a_second_supervisor_adopts_the_same_configuration_and_replaces_another(tmp_path: Path) -> None:
    def supervisor(argument: str) -> Supervisor:
        return Supervisor(
            name="sleeper",
            command=Command((*SLEEPER, argument), dict(os.environ)),
            pid_file=tmp_path / "sleeper.pid",
            log=tmp_path / "sleeper.log",
        )

    first = supervisor("a")
    await first.start()
    adopting = supervisor("a")
    assert adopting.adoptable()
    await adopting.start()
    assert adopting.adopted
    assert adopting.pid == first.pid
    replacing = supervisor("b")
    assert not replacing.adoptable()
    for watcher in (first, adopting):
        assert watcher._task
        watcher._task.cancel()
    await replacing.start()
    assert replacing.pid != first.pid
    assert first.pid is None
    assert [name for name, _ in leftovers(tmp_path)] == ["sleeper"]
    await replacing.stop()


def test_ports_are_remembered_and_a_taken_port_names_the_flag(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    assert InternalPorts.remembered(path) is None
    ports = InternalPorts.choose(path)
    assert InternalPorts.remembered(path) == ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse, match="--port"):
            require_free("127.0.0.1", taken.getsockname()[1], flag="--port")
    require_free("127.0.0.1", ports.control_grpc, flag="--port")


def test_one_control_plane_per_data_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (
        DataDirLock(run / "lock"),
        pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"),
        DataDirLock(run / "lock"),
    ):
        pass
    with DataDirLock(run / "lock"):
        pass


@pytest.mark.parametrize("moment", range(12))
async def test_a_start_that_is_interrupted_leaves_nothing_once_it_is_stopped(tmp_path: Path, moment: int) -> None:
    """Ctrl-C may come between any two steps of a start; the stop that follows knows of the process all the same."""
    mark = str(tmp_path)
    supervisor = Supervisor(
        name="it",
        command=Command(
            argv=(sys.executable, "-c", "import time; time.sleep(600)", mark), environment=dict(os.environ)
        ),
        pid_file=tmp_path / "it.pid",
        log=tmp_path / "it.log",
    )
    starting = asyncio.create_task(supervisor.start())
    for _ in range(moment):
        await asyncio.sleep(0)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    await supervisor.stop()
    assert running_with(mark) == []
    assert not (tmp_path / "it.pid").exists()


def running_with(argument: str) -> list[str]:
    """The command lines of all processes that have this argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if argument in words:
                found.append(" ".join(words))
    return found
