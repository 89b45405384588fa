"""Models that an inference server has already: found in its repository, described by the server itself, and adopted.

`find` is the first half of `Deployer.adopt`: what the server has under a name, as a version with the server's own
names. `AutoAdoption` does it for whatever appears in the repository, where the operator asked for that
(`penstock up --adopt-all`). An adopted model is never unloaded and its files are never touched.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from adapters.server import InferenceServer, Listed, Served, ServerError
from adapters.signature import Signature
from gateway.contract.names import check_model_name, suggest_model_name

_log = logging.getLogger(__name__)

POLL_S = 0.25
"""Seconds between two looks at a repository; servers have no event for a model that was loaded."""

AGAIN_S = 10.0
"""Seconds until a model that could not be adopted is tried again."""


class NotInRepository(Exception):
    """The inference server knows no such model."""

    def __init__(self, name: str, server: str, listed: Sequence[Listed]) -> None:
        names = sorted({entry.served.name for entry in listed})
        nearest = difflib.get_close_matches(name, names, n=3) or names[:10]
        hint = f"; it has {', '.join(nearest)}" if nearest else "; its repository is empty"
        super().__init__(f"the inference server {server!r} has no model {name!r} in its repository{hint}")


class NotAdoptable(Exception):
    """The model is there and cannot be adopted; the message says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model of the server's own, as it is now. `digest` changes when what the server serves under the name does."""

    served: Served
    signature: Signature
    digest: str


async def find(server: InferenceServer, name: str, version: str | None) -> Found:
    """The model `name` of the server's repository, loaded; `version` None takes the highest one that is ready.

    Raises NotInRepository, NotAdoptable, ServerError.
    """
    listed = await server.index()
    if not any(entry.served.name == name for entry in listed):
        raise NotInRepository(name, server.name, listed)
    entries = [entry for entry in listed if entry.served.name == name]
    if not any(_wanted(entry, version) for entry in entries):
        await server.load_own(name)
        entries = [entry for entry in await server.index() if entry.served.name == name]
    ready = sorted((entry.served for entry in entries if _wanted(entry, version)), key=_order)
    if not ready:
        there = ", ".join(
            e.served.version + (f" ({e.reason})" if e.reason else "") for e in entries if e.served.version
        )
        wanted = "ready version" if version is None else f"ready version {version}"
        raise NotAdoptable(f"model {name!r} on {server.name!r} has no {wanted}; it has {there or 'none'}")
    served = ready[-1]
    signature = await server.describe(served)
    return Found(served, signature, _digest(server.name, served, signature))


def public_name(name: str) -> str:
    """The name that callers use for a model that the server calls `name`. Raises BadModelName."""
    suggestion = suggest_model_name(name)
    return check_model_name(suggestion or name)


def _wanted(entry: Listed, version: str | None) -> bool:
    return entry.ready and version in (None, entry.served.version)


def _order(served: Served) -> tuple[int, str]:
    return (int(served.version) if served.version.isdecimal() else 0, served.version)


def _digest(server: str, served: Served, signature: Signature) -> str:
    what = json.dumps([server, served.name, served.version, signature.to_json()], sort_keys=True)
    return f"adopted:{hashlib.sha256(what.encode()).hexdigest()}"


class AutoAdoption:
    """Adopts what appears in the repository, until cancelled.

    `adopt` takes the server's name and version and raises what keeps it from being adopted; `known` says whether a
    model of the server is ours already. With `load`, models that nobody loaded yet are loaded too: right for a
    repository of our own, not for a server of somebody else.
    """

    def __init__(
        self,
        *,
        server: InferenceServer,
        known: Callable[[Served], bool],
        adopt: Callable[[Served], Awaitable[None]],
        load: bool,
    ) -> None:
        self._server = server
        self._known = known
        self._adopt = adopt
        self._load = load
        self._not_before: dict[Served, float] = {}

    async def run(self) -> None:
        """Forever; cancel it to stop."""
        while True:
            await self.once()
            await asyncio.sleep(POLL_S)

    async def once(self) -> None:
        """One look. Trouble is logged and met again later."""
        try:
            listed = await self._server.index()
        except ServerError as error:
            _log.debug("the repository index could not be read: %s", error)
            return
        now = asyncio.get_running_loop().time()
        for entry in listed:
            served = entry.served
            if self._known(served) or self._not_before.get(served, now) > now:
                continue
            if not entry.ready and not (self._load and not entry.reason):
                continue
            self._not_before[served] = now + AGAIN_S
            try:
                await self._adopt(served)
            except Exception as error:  # whatever one model's trouble is, the others go on
                _log.warning("%s of the repository is not adopted: %s", served, error)
