"""What a change costs among many models, through the real registry, routing, ADS and Envoy.

A weight change counts as in effect when a request that is sent after it is answered by the other version; a model as
visible when its first prediction is answered. The server behind is the bench's stub, which knows every model.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.envoy.yaml_config import bootstrap_yaml
from loadtest.bench.gateway.calls import SMALL
from loadtest.bench.gateway.cpu import process_time, resident_bytes
from loadtest.bench.gateway.fronts import Front, envoy, stub
from loadtest.bench.gateway.measure import p95
from loadtest.bench.gateway.plane import CANARY_OF, Plane, running_plane
from rollout.ports import FULL_WEIGHT

_SETTLE_S = 120.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Figures of one run with `models` models; seconds, bytes."""

    models: int
    compile_s: float
    load_s: float
    resident_bytes: int
    weight_change_s: tuple[float, ...]
    weight_cpu_s: float
    """CPU of Envoy per weight change beyond what it uses idle for the same time."""
    wrong_version: int
    """Answers after a weight change by the version that should have none."""
    one_more_s: tuple[float, ...]

    @property
    def weight_change_p95_s(self) -> float:
        return p95(self.weight_change_s)

    @property
    def one_more_p95_s(self) -> float:
        return p95(self.one_more_s)


def measure_scale(
    *,
    models: int,
    envoy_cpu: int,
    load_cpu: int,
    progress: Callable[[str], None],
    weight_changes: int = 200,
    more_models: int = 40,
) -> Scale:
    """Measure all of it on a registry of its own; seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        run = _measure(Path(folder), models, weight_changes, more_models, (envoy_cpu, load_cpu), progress)
        return asyncio.run(run)


async def _measure(
    folder: Path,
    models: int,
    weight_changes: int,
    more_models: int,
    cpus: tuple[int, int],
    progress: Callable[[str], None],
) -> Scale:
    with stub(folder, (SMALL,), cpus[1]) as stubs:
        async with running_plane(folder, stubs[SMALL.name].infer) as plane:
            progress(f"scale: registering {models:,} models")
            plane.fill(models)
            started = time.monotonic()
            plane.data_plane.load(plane.routing.state())
            compile_s = time.monotonic() - started
            gc.collect()
            gc.freeze()  # as `penstock up` does
            progress(f"scale: compiled in {compile_s:.1f} s; starting Envoy")
            started = time.monotonic()
            bootstrap = bootstrap_yaml(plane.settings)
            with ExitStack() as stack:
                starting = envoy(folder / "scale.yaml", bootstrap, plane.settings, cpus[0])
                # In a thread: Envoy becomes ready by what this loop serves it.
                front = await asyncio.to_thread(stack.enter_context, starting)
                await plane.ads.wait_settled(timeout_s=_SETTLE_S)
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.port}", timeout=30) as client:
                    await _answered(client, f"m{models - 1:05d}")
                    load_s = time.monotonic() - started
                    progress(f"scale: all models are there after {load_s:.1f} s")
                    await plane.routing.publish()
                    weights = await _weight_changes(plane, client, front, weight_changes)
                    progress(f"scale: {weight_changes} weight changes done")
                    one_more = []
                    for number in range(more_models):
                        one_more.append(await _one_more(plane, client, f"more{number:03d}"))
                        progress(f"scale: one more model after {one_more[-1] * 1000:.0f} ms")
                    return Scale(
                        models=models,
                        compile_s=compile_s,
                        load_s=load_s,
                        resident_bytes=resident_bytes(front.pid),
                        weight_change_s=weights.seconds,
                        weight_cpu_s=weights.cpu_s,
                        wrong_version=weights.wrong,
                        one_more_s=tuple(one_more),
                    )


@dataclass(frozen=True, slots=True)
class _Changes:
    seconds: tuple[float, ...]
    cpu_s: float
    wrong: int


async def _weight_changes(plane: Plane, client: httpx.AsyncClient, front: Front, count: int) -> _Changes:
    """All traffic to the candidate and back, `count` times; one request after each says whether it is in effect."""
    await plane.routing.stage(CANARY_OF, 2)
    seconds, wrong = [], 0
    for number in range(count):
        weight = FULL_WEIGHT if number % 2 == 0 else 0
        started = time.monotonic()
        await plane.routing.lease({CANARY_OF: weight})
        seconds.append(time.monotonic() - started)
        wrong += await _version(client, CANARY_OF) != ("2" if weight else "1")
    # CPU apart from requests: the same number of changes alone, and an equally long time without any.
    used, took = await _cpu(front, lambda: _leases(plane, count))
    idle, _ = await _cpu(front, lambda: asyncio.sleep(took))
    await plane.routing.withdraw(CANARY_OF, 2)
    return _Changes(tuple(seconds), max(0.0, used - idle) / count, wrong)


async def _leases(plane: Plane, count: int) -> None:
    for number in range(count):
        await plane.routing.lease({CANARY_OF: 1000 + number % 2})


async def _cpu(front: Front, act: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """CPU seconds of Envoy while it lasts, and how long that was."""
    before, started = process_time(front.pid), time.monotonic()
    await act()
    return (process_time(front.pid) - before).used_ns / 1e9, time.monotonic() - started


async def _one_more(plane: Plane, client: httpx.AsyncClient, name: str) -> float:
    plane.add(name)
    started = time.monotonic()
    published = asyncio.ensure_future(plane.routing.promote(name, 1))
    await _answered(client, name)
    seconds = time.monotonic() - started
    await published
    return seconds


async def _answered(client: httpx.AsyncClient, name: str) -> None:
    """Ask until the model answers."""
    async with asyncio.timeout(_SETTLE_S):
        while not (await _predict(client, name)).is_success:
            pass


async def _version(client: httpx.AsyncClient, name: str) -> str:
    return str((await _predict(client, name)).headers.get("x-penstock-version", ""))


async def _predict(client: httpx.AsyncClient, name: str) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return await client.post(f"/v1/models/{name}:predict", content=SMALL.json_request(), headers=headers)


def section(scale: Scale) -> str:
    """The part of the page about it."""
    rows = [
        ("weight change in effect, p95", scale.weight_change_p95_s * 1000, 20.0, "ms"),
        ("one more model visible, p95", scale.one_more_p95_s * 1000, 200.0, "ms"),
        ("memory of Envoy", scale.resident_bytes / 1e6, 650.0, "MB"),
        ("full load after a cold start of Envoy", scale.load_s, 6.0, "s"),
    ]
    table = "\n".join(
        f"| {name} | {value:,.1f} {unit} | {most:g} {unit} | "
        f"{'met' if value <= most else f'missed by {value - most:,.1f} {unit}'} |"
        for name, value, most, unit in rows
    )
    return f"""## {scale.models:,} models

| figure | measured | at most | |
|---|---|---|---|
{table}

- CPU of Envoy per weight change, beyond an idle Envoy's: {scale.weight_cpu_s * 1e6:,.0f} us. After each of
  {len(scale.weight_change_s)} changes, all traffic to the candidate or none, one prediction was sent; \
{scale.wrong_version} came from the other version.
- One more model: {len(scale.one_more_s)} times, from the registry's entry to the first prediction answered; slowest \
{max(scale.one_more_s) * 1000:,.0f} ms.
- Compiling all models from the registry took {scale.compile_s:.1f} s, once per start of the control plane. The cold
  start of Envoy counts from its process to the first prediction of the last model.
"""
