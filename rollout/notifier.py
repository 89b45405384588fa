"""Sends notices to webhooks, beside the controller: a slow or dead receiver delays nobody and nothing but itself.

`rollout.fleet` hands notices over with `tell`, which never waits and never raises. Each address has its own bounded
queue and its own task, which tries again with growing pauses and gives up on a notice after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from rollout.notices import Notice
from rollout.ports import Clock
from rollout.spec_parts import Webhook

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Persistence:
    """How much is done for a notice. Seconds, except for the counts.

    first, longest: bounds of the doubling pause between attempts (1 to 60)
    attempts:       then the notice is given up (8: some three minutes)
    timeout:        longest wait for an answer (10)
    queue:          notices that wait per address; the oldest is dropped for a newer one (100)
    """

    first: float = 1.0
    longest: float = 60.0
    attempts: int = 8
    timeout: float = 10.0
    queue: int = 100


@dataclass(slots=True)
class Totals:
    """Notices by what became of them, since the start; `retries` are attempts beyond the first."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    retries: int = 0


@dataclass(slots=True)
class _Address:
    waiting: deque[Notice] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Notifier:
    """Call `aclose` in the end; what waits then is not sent."""

    def __init__(self, *, clock: Clock, persistence: Persistence | None = None) -> None:
        self._clock = clock
        self._persistence = persistence or Persistence()
        self._client: httpx.AsyncClient | None = None
        self._addresses: dict[str, _Address] = {}
        self.totals = Totals()

    @property
    def waiting(self) -> int:
        return sum(len(address.waiting) for address in self._addresses.values())

    def tell(self, notice: Notice, webhooks: Iterable[Webhook]) -> None:
        """Queue the notice for each address that wants it. Call it inside the event loop."""
        for webhook in webhooks:
            if notice.occasion not in webhook.on:
                continue
            address = self._addresses.setdefault(webhook.url, _Address())
            if len(address.waiting) >= self._persistence.queue:
                address.waiting.popleft()
                self.totals.dropped += 1
            address.waiting.append(notice)
            if address.task is None or address.task.done():
                address.task = asyncio.get_running_loop().create_task(self._send_all(webhook.url, address))

    async def aclose(self) -> None:
        tasks = [address.task for address in self._addresses.values() if address.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _http(self) -> httpx.AsyncClient:
        """Made at its first use: reading the certificate authorities is a noticeable part of a start."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._persistence.timeout)
        return self._client

    async def _send_all(self, url: str, address: _Address) -> None:
        while address.waiting:
            await self._insist(url, address.waiting.popleft())

    async def _insist(self, url: str, notice: Notice) -> None:
        wait, trouble = self._persistence.first, ""
        for attempt in range(self._persistence.attempts):
            if attempt:
                self.totals.retries += 1
                await self._clock.sleep(wait)
                wait = min(2 * wait, self._persistence.longest)
            trouble = await self._send(url, notice)
            if not trouble:
                self.totals.delivered += 1
                return
        self.totals.failed += 1
        # The path of a webhook is its secret, so the log names the host only.
        log.warning("the webhook at %s was not told %r: %s", urlsplit(url).hostname, notice.text, trouble)

    async def _send(self, url: str, notice: Notice) -> str:
        """Why it did not arrive, in words; empty when it did."""
        try:
            answer = await self._http().post(url, json=notice.payload())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return repr(error)
        return "" if answer.is_success else f"it answered {answer.status_code}"
