"""The loop that keeps the data plane and the inference server as the registry says they should be.

Run by the composition root for as long as the control plane lives. It is what loads everything again after an
inference server restarted, republishes after its address changed, and unloads what nobody needs any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway.routing import GatewayRouting
from gateway.serving import InferenceServing

_log = logging.getLogger(__name__)

INTERVAL_S = 2.0
"""Seconds between two rounds: how stale readiness can be. A round costs one small inference per routed version."""


class Upkeep:
    """Routes first, then versions: a version is unloaded only after the routes without it were acknowledged."""

    def __init__(self, *, routing: GatewayRouting, serving: InferenceServing, interval_s: float = INTERVAL_S) -> None:
        self._routing = routing
        self._serving = serving
        self._interval_s = interval_s
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Do the next round now: something is known to have changed (the inference server was restarted)."""
        self._nudged.set()

    async def run(self) -> None:
        """Forever; cancel it to stop."""
        while True:
            self._nudged.clear()
            await self.once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._nudged.wait()

    async def once(self) -> None:
        """One round. Trouble is logged and met again in the next one."""
        published = await self._published()
        failing = self._serving.failing()
        # Whatever the data plane's trouble is, the versions must stay up; and nothing may be unloaded while the routes
        # that Envoy has may still name it.
        await self._serving.reconcile(unload=published)
        if self._serving.failing() != failing:
            await self._published()  # At once: callers' ready calls go by it.

    async def _published(self) -> bool:
        try:
            await self._routing.publish()
        except Exception:
            _log.exception("the routes could not be published; trying again in %g s", self._interval_s)
            return False
        return True
