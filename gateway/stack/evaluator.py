"""The mirror evaluator as a process: started when a rollout wants it, ended when none does.

It has no state, so unlike Envoy and Triton it is not kept for its own sake: without a shadow step its 100 MB and its
wake-ups are saved, and one that runs and does not answer is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from adapters.server import Address
from gateway.stack.process import StartFailed
from gateway.stack.supervisor import Command, Supervisor

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_LINGER_S = 60.0
"""An evaluator that nobody wants stays this long: the next rollout may be on its way."""

_DEAF_S = 10.0
"""A running evaluator that has not answered for so long is frozen, or lost in its work."""


def evaluator_command(*, listen: Address, backend: Address, sample: Path, sample_bytes: int) -> Command:
    return Command(
        argv=(
            sys.executable,
            "-m",
            "rollout.evidence.mirror",
            "--listen",
            str(listen),
            "--backend",
            str(backend),
            "--sample",
            str(sample),
            "--sample-bytes",
            str(sample_bytes),
        ),
        environment={name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}},
    )


class EvaluatorKeeper:
    """`wanted`: whether any pair is to be compared now; `silence_s`: for how long it was asked and did not answer."""

    def __init__(self, process: Supervisor, *, wanted: Callable[[], bool], silence_s: Callable[[], float]) -> None:
        self._process = process
        self._wanted = wanted
        self._silence_s = silence_s

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        started: float | None = None
        last_wanted = loop.time()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = loop.time()
            if self._wanted():
                last_wanted = now
                if started is None and await self._start():
                    started = now
            if started is None:
                continue
            deaf = min(self._silence_s(), now - started) >= _DEAF_S
            if deaf:
                _log.warning("the mirror evaluator does not answer: it is replaced")
            if deaf or now - last_wanted >= _LINGER_S:
                await self._process.stop()
                started = None

    async def stop(self) -> None:
        """End the process, if there is one."""
        await self._process.stop()

    async def _start(self) -> bool:
        try:
            await self._process.start()
        except StartFailed as error:
            _log.error("the mirror evaluator could not be started: %s", error)
            return False
        return True
