"""The evaluator's parts put together, and run until a signal. Called by `__main__`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from adapters.server import Address
from adapters.triton.inference import Inference
from rollout.evidence.mirror.bench import Bench
from rollout.evidence.mirror.sample import Sample
from rollout.evidence.mirror.service import evaluator_server


async def run(listen: str, backend: Address, folder: Path | None, sample_bytes: int) -> None:
    """Until SIGINT or SIGTERM. `folder` is the sample's, kept when `sample_bytes` is above 0."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    inference = Inference(backend)
    bench = Bench(inference)
    work = [asyncio.create_task(bench.run(), name="bench")]
    if folder is not None and sample_bytes > 0:
        bench.sample = Sample(folder, sample_bytes, bench.totals)
        work.append(asyncio.create_task(bench.sample.run(), name="sample"))
    server = evaluator_server(bench)
    server.add_insecure_port(listen)
    await server.start()
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait([*work, stop], return_when=asyncio.FIRST_COMPLETED)
    await server.stop(grace=0)
    for task in work:
        task.cancel()
    ended = await asyncio.gather(*work, return_exceptions=True)
    if bench.sample is not None:
        await bench.sample.flush()
    await inference.close()
    for error in ended:
        if isinstance(error, Exception):
            raise error
