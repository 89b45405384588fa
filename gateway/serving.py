"""Versions on the inference server: loaded, proven by a completed inference, kept that way, and taken down.

Implements `rollout.ports.Serving` for the controller, whose "model" is a routing line's name (`digits@2`); the deploy
use case loads through it too. `reconcile` is run by `gateway.upkeep` and makes the server match the registry, also
after the server was restarted underneath us.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from adapters.server import InferenceServer, LoadFailed, ServerError, ServerUnavailable
from gateway.contract.lines import Line
from gateway.registry import Registry, RegistryError, Version, VersionState
from rollout.ports import Clock, LoadRefused

_log = logging.getLogger(__name__)

VersionId = tuple[str, int]

DRAIN_S = 5.0
"""Seconds between the last route to a version and its unloading: requests that Envoy holds still reach it."""

FRESH_S = 2.0
"""Seconds for which a completed inference counts as "answers now", so that looking often costs the server little."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the last probe of a version showed. `at` is monotonic seconds; `probe_s` how long the inference took.

    `silent`: not ready because the server says nothing at all, which is no word about the version.
    """

    ready: bool
    at: float
    probe_s: float = 0.0
    reason: str = ""
    silent: bool = False


class _Answer(Enum):
    """What a probe met. A server that says nothing is not asked to load again: it may only be busy or starting."""

    READY = auto()
    NOT_LOADED = auto()
    NONE = auto()


class InferenceServing:
    """The versions of all models on one inference server.

    Versions that the registry routes (stable, candidate, previous) are kept loaded; a version loaded for anything
    else stays until `unload`.
    """

    def __init__(self, *, registry: Registry, server: InferenceServer, clock: Clock) -> None:
        self._registry = registry
        self._server = server
        self._clock = clock
        self._locks: defaultdict[VersionId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._readiness: dict[VersionId, Readiness] = {}
        # What an earlier process may have left loaded: kept where it is wanted, unloaded by `reconcile` where not.
        # An adopted version is the server's own, and not for us to take down.
        self._loaded: set[VersionId] = {
            (version.model, version.number)
            for model in registry.models()
            for version in registry.versions(model.name)
            if version.state is VersionState.READY and version.served is None
        }
        self._held: set[VersionId] = set()
        self._drained_at: dict[VersionId, float] = {}

    @property
    def server(self) -> InferenceServer:
        return self._server

    def readiness(self) -> Mapping[VersionId, Readiness]:
        """What is known of each version that was probed, for /readyz, gRPC health and the model list."""
        return MappingProxyType(self._readiness)

    def is_ready(self, model: str, version: int) -> bool:
        """Whether the last probe of the version completed. Asks nobody."""
        seen = self._readiness.get((model, version))
        return seen is not None and seen.ready

    def failing(self) -> frozenset[VersionId]:
        """Versions that the server answers for, with an error. It may call them ready all the same."""
        return frozenset(key for key, seen in self._readiness.items() if not seen.ready and not seen.silent)

    # rollout.ports.Serving

    async def load(self, model: str, version: int) -> None:
        """Load the version and prove it by a completed inference; the registry then says READY, or FAILED and why.

        A server that cannot be reached leaves a version that once was READY as it is: the trouble is the server's.
        """
        model = Line.parse(model).model
        found = self._registry.version(model, version)
        key = (model, version)
        async with self._locks[key]:
            self._held.add(key)
            self._drained_at.pop(key, None)
            if found.state is not VersionState.READY:
                self._registry.set_state(model, version, VersionState.LOADING)
            try:
                await self._bring_up(found)
            except ServerError as error:
                self._held.discard(key)
                if found.state is not VersionState.READY or isinstance(error, LoadFailed):
                    self._registry.set_state(model, version, VersionState.FAILED, str(error))
                raise LoadRefused(f"{model} version {version} cannot be served: {error}") from error
            self._registry.set_state(model, version, VersionState.READY)

    async def ready(self, model: str, version: int) -> bool:
        model = Line.parse(model).model
        seen = self._readiness.get((model, version))
        if seen is not None and self._clock.monotonic() - seen.at < FRESH_S:
            return seen.ready
        try:
            found = self._registry.version(model, version)
        except RegistryError:
            return False
        return await self._probe(found) is _Answer.READY

    async def unload(self, model: str, version: int) -> None:
        """Take the version down once its last requests are through, by the next rounds of upkeep.

        The previous version is no longer kept for an undo; one that is stable or candidate stays loaded.
        """
        model = Line.parse(model).model
        self._held.discard((model, version))
        self._registry.forget_previous(model, version)

    # Upkeep

    async def reconcile(self, *, unload: bool = True) -> None:
        """Make the server match the registry, once: probe what should serve, load what does not answer.

        Versions that nothing routes or holds are unloaded after `DRAIN_S`; without `unload` they stay, for as long
        as the routes that Envoy has may still name them. Never raises for what the server does: trouble is logged,
        shows in `readiness`, and is tried again next time.
        """
        wanted = self._wanted()
        routed = frozenset(wanted)
        self._held -= routed  # From here the registry holds them.
        await asyncio.gather(*(self._keep_up(version) for version in wanted.values()))
        if not unload:
            return
        now = self._clock.monotonic()
        for key in self._loaded - routed - self._held:
            due = self._drained_at.setdefault(key, now + DRAIN_S)
            if now >= due:
                await self._take_down(*key)
        for key in routed:
            self._drained_at.pop(key, None)

    def _wanted(self) -> dict[VersionId, Version]:
        return {
            (line.line.model, number): self._registry.version(line.line.model, number)
            for line in self._registry.lines()
            for number in line.routed
        }

    async def _keep_up(self, version: Version) -> None:
        key = (version.model, version.number)
        lock = self._locks[key]
        if lock.locked():
            return  # It is being loaded right now.
        async with lock:
            known = key in self._loaded or version.served is not None
            if known and await self._probe(version) is not _Answer.NOT_LOADED:
                return
            try:
                await self._bring_up(version)
            except ServerError as error:
                _log.warning("%s version %d does not serve: %s", version.model, version.number, error)
                return
            if version.state is not VersionState.READY:
                self._registry.set_state(version.model, version.number, VersionState.READY)
            _log.info("%s version %d is loaded and answers", version.model, version.number)

    async def _bring_up(self, version: Version) -> None:
        """Raises ServerError, after noting it."""
        try:
            await self._server.load(version.artefact)
            if version.served is None:
                self._loaded.add((version.model, version.number))
            took = await self._server.probe(version.artefact)
        except ServerError as error:
            self._note_failure(version, error)
            raise
        self._note(version, Readiness(ready=True, at=self._clock.monotonic(), probe_s=took))

    async def _probe(self, version: Version) -> _Answer:
        try:
            took = await self._server.probe(version.artefact)
        except ServerError as error:
            self._note_failure(version, error)
            return _Answer.NONE if isinstance(error, ServerUnavailable) else _Answer.NOT_LOADED
        self._note(version, Readiness(ready=True, at=self._clock.monotonic(), probe_s=took))
        return _Answer.READY

    async def _take_down(self, model: str, number: int) -> None:
        key = (model, number)
        async with self._locks[key]:
            try:
                await self._server.unload(model, number)
            except ServerUnavailable as error:
                _log.warning("%s version %d could not be unloaded yet: %s", model, number, error)
                return
            self._loaded.discard(key)
            self._readiness.pop(key, None)
            self._drained_at.pop(key, None)
        _log.info("%s version %d is unloaded", model, number)

    def _note_failure(self, version: Version, error: ServerError) -> None:
        silent = isinstance(error, ServerUnavailable)
        seen = Readiness(ready=False, at=self._clock.monotonic(), reason=str(error), silent=silent)
        self._note(version, seen)

    def _note(self, version: Version, seen: Readiness) -> None:
        self._readiness[(version.model, version.number)] = seen
