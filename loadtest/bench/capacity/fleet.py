"""A control plane before a fleet of simulated Envoys: how long a change takes to reach all, and what a lease costs.

The control plane's part is real (`plane`) and runs in this process; the Envoys run in another (`envoys`). A change has
reached all when the control plane says so: every Envoy has acknowledged it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest.bench.gateway.cpu import process_time, resident_bytes
from loadtest.bench.gateway.plane import CANARY_OF, Plane, running_plane
from loadtest.demo.children import ChildFailed

_SETTLE_S = 120.0
_NO_SERVER = 9
"""Nobody calls a model here: the port that routes name is the discard service's."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a change took: seconds until all had it, and the CPU seconds of the control plane and of all Envoys."""

    seconds: float
    control_s: float
    envoys_s: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """Figures of one size of fleet. Costs are medians; `heartbeat` is per second, with a renewal in it."""

    envoys: int
    joined: Cost
    """Until all of them hold everything: those that joined since the size before, saying what they hold."""
    one_more: Cost
    weight: Cost
    heartbeat: Cost
    resident_bytes: int
    """The control plane's memory."""


@dataclass(frozen=True, slots=True)
class Fleets:
    """Fleets of rising size before a control plane with `models` models, and its memory before the first Envoy."""

    models: int
    resident_bytes: int
    sizes: Sequence[Fleet]


def measure_fleets(
    sizes: Sequence[int], *, models: int, heartbeats: int, repeats: int, progress: Callable[[str], None]
) -> Fleets:
    """Measure fleets of these sizes, ascending, one growing into the next; the first has one Envoy, which takes all."""
    with tempfile.TemporaryDirectory(prefix="bench-fleet-") as folder:
        return asyncio.run(_measure(Path(folder), sizes, models, heartbeats, repeats, progress))


async def _measure(
    folder: Path, sizes: Sequence[int], models: int, heartbeats: int, repeats: int, progress: Callable[[str], None]
) -> Fleets:
    async with running_plane(folder, _NO_SERVER) as plane:
        progress(f"fleet: registering {models:,} models")
        plane.fill(models)
        plane.data_plane.load(plane.routing.state())
        gc.collect()
        gc.freeze()  # as `penstock up` does
        before = resident_bytes(os.getpid())
        async with _envoys(plane.settings.control_grpc.port) as process:
            fleets = []
            for size in sizes:
                fleets.append(await _fleet(_Fleet(plane, process), size, heartbeats, repeats))
                progress(f"fleet: {fleets[-1]}")
        return Fleets(models, before, fleets)


@dataclass(frozen=True, slots=True)
class _Fleet:
    plane: Plane
    envoys: asyncio.subprocess.Process

    async def cost(self, act: Callable[[], Awaitable[object]]) -> Cost:
        pids = os.getpid(), self.envoys.pid
        before, started = [process_time(pid) for pid in pids], time.monotonic()
        await act()
        seconds = time.monotonic() - started
        control, envoys = (process_time(pid) - old for pid, old in zip(pids, before, strict=True))
        return Cost(seconds, control.used_ns / 1e9, envoys.used_ns / 1e9)

    async def join(self, size: int) -> None:
        assert self.envoys.stdin is not None
        assert self.envoys.stdout is not None
        self.envoys.stdin.write(b"%d\n" % size)
        async with asyncio.timeout(_SETTLE_S):
            if not await self.envoys.stdout.readline():
                raise ChildFailed("the process of the simulated Envoys ended; its error is above")
        await self.plane.ads.wait_settled(timeout_s=_SETTLE_S)

    async def one_more(self, name: str) -> None:
        self.plane.add(name)
        await self.plane.routing.promote(name, 1)

    async def lease(self, weight: int) -> None:
        await self.plane.routing.lease({CANARY_OF: weight})

    async def renew(self, weight: int) -> None:
        """One second with a renewal in it."""
        following = asyncio.get_running_loop().time() + 1
        await self.lease(weight)
        await asyncio.sleep(following - asyncio.get_running_loop().time())


async def _fleet(fleet: _Fleet, size: int, heartbeats: int, repeats: int) -> Fleet:
    joined = await fleet.cost(partial(fleet.join, size))
    await fleet.plane.routing.publish()
    more = [await fleet.cost(partial(fleet.one_more, f"more-{size}-{n}")) for n in range(repeats)]
    await fleet.plane.routing.stage(CANARY_OF, 2)
    weights = [await fleet.cost(partial(fleet.lease, 1000 + n)) for n in range(repeats)]
    renewals = [await fleet.cost(partial(fleet.renew, 1000)) for _ in range(heartbeats)]
    resident = resident_bytes(os.getpid())
    await fleet.plane.routing.withdraw(CANARY_OF, 2)
    return Fleet(size, joined, _median(more), _median(weights), _median(renewals), resident)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.control_s for cost in costs),
        statistics.median(cost.envoys_s for cost in costs),
    )


@asynccontextmanager
async def _envoys(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process of the simulated Envoys, until the end of the block; they leave one by one, as Envoys do."""
    command = (sys.executable, "-m", "loadtest.bench.capacity.envoys", str(port))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    try:
        yield process
        process.stdin.close()
        async with asyncio.timeout(_SETTLE_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
