"""The evaluator process: `python -m rollout.evidence.mirror --listen HOST:PORT --backend HOST:PORT ...`.

Started and ended by `gateway.stack`; it keeps no state and may be killed at any time. It gives way to everything else
on the machine: whatever it does, nobody waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from adapters.server import Address
from adapters.triton.inference import Inference
from rollout.evidence.mirror.bench import Bench
from rollout.evidence.mirror.sample import Sample
from rollout.evidence.mirror.service import evaluator_server

_NICE = 10


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rollout.evidence.mirror", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="where copies and orders come in")
    parser.add_argument("--backend", required=True, metavar="HOST:PORT", help="gRPC of the inference server to ask")
    parser.add_argument("--sample", type=Path, help="folder of the sample")
    parser.add_argument("--sample-bytes", type=int, default=0, help="most that the sample may hold; 0 keeps none")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.nice(_NICE)
    asyncio.run(_run(options.listen, _address(options.backend), options.sample, options.sample_bytes))


async def _run(listen: str, backend: Address, folder: Path | None, sample_bytes: int) -> None:
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


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


if __name__ == "__main__":
    main()
