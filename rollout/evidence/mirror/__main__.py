"""The evaluator process: `python -m rollout.evidence.mirror --listen HOST:PORT --backend HOST:PORT ...`.

Started and ended by `gateway.stack`; it keeps no state and may be killed at any time. It gives way to everything else
on the machine: whatever it does, nobody waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from adapters.server import Address

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
    # Here, because what it imports costs a second of CPU, which is for others too.
    from rollout.evidence.mirror.process import run

    asyncio.run(run(options.listen, _address(options.backend), options.sample, options.sample_bytes))


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


if __name__ == "__main__":
    main()
