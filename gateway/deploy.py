"""The deploy use case: a model file becomes a version that serves.

    receive -> describe -> contract verdict -> register -> load -> probe -> live, or a rollout

Everything up to `register` changes nothing and is refused with a reason; from there on a version exists, and what
goes wrong is recorded on it. A version that was not proven ready is never routed.

Called by the operators' API. What a rollout does afterwards is the controller's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adapters.server import BadArtefact
from adapters.signature import Signature
from gateway.artefacts import ArtefactStore, StagedArtefact
from gateway.contract.compare import Outcome, Verdict, compare
from gateway.contract.derive import derive
from gateway.contract.model import Contract
from gateway.contract.names import model_key
from gateway.registry import Registry, Version, VersionState
from gateway.routing import GatewayRouting
from gateway.serving import InferenceServing
from rollout.ports import LoadRefused

_log = logging.getLogger(__name__)

MAX_VERSION = 2**31 - 1
"""Version numbers travel as decimal headers and metric labels; nobody needs more."""

StartRollout = Callable[[str, int], Awaitable[int]]
"""Start a rollout of model and candidate; the rollout's id. Raises with a reason for a person."""


class BreakingChange(Exception):
    """The version would break the model's callers; `verdict` lists how."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


class BadVersionNumber(Exception):
    """Not a version number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"version {number} is not allowed: expected a whole number from 1 to {MAX_VERSION}")


class DeployStage(StrEnum):
    REGISTERED = "registered"
    NOTED = "noted"
    """Something about the file that its owner should know: an output that cannot be served, say."""
    LOADING = "loading"
    READY = "ready"
    LIVE = "live"
    ROLLOUT = "rollout"
    UNROUTED = "unrouted"
    UNCHANGED = "unchanged"
    FAILED = "failed"


FINAL_STAGES = frozenset(
    {DeployStage.LIVE, DeployStage.ROLLOUT, DeployStage.UNROUTED, DeployStage.UNCHANGED, DeployStage.FAILED}
)


@dataclass(frozen=True, slots=True)
class DeployEvent:
    """One step of a deployment, for a person (`message`) and for programs. `rollout` is the started rollout's id."""

    stage: DeployStage
    model: str
    version: int
    message: str
    rollout: int | None = None


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What is asked for.

    `number` None takes the next free one. `start_rollout` is used when the model already has a stable version;
    None leaves the new version loaded and out of the routes. `source` is what the caller calls the file.
    """

    model: str
    number: int | None = None
    start_rollout: StartRollout | None = None
    source: str = "the file"


class Deployment:
    """A deployment that was accepted; it goes on whether or not anybody watches."""

    def __init__(self, version: Version, *, on_end: Callable[[DeployStage], None]) -> None:
        self.model = version.model
        self.version = version.number
        self._on_end = on_end
        self._events: list[DeployEvent] = []
        self._changed = asyncio.Condition()

    async def events(self) -> AsyncIterator[DeployEvent]:
        """All events from the first one, as they come; ends after a final stage."""
        seen = 0
        while True:
            async with self._changed:
                while len(self._events) == seen:
                    await self._changed.wait()
            for event in self._events[seen:]:
                seen += 1
                yield event
                if event.stage in FINAL_STAGES:
                    return

    async def report(self, stage: DeployStage, message: str, rollout: int | None = None) -> None:
        """For the deployer: add an event."""
        async with self._changed:
            self._events.append(DeployEvent(stage, self.model, self.version, message, rollout))
            self._changed.notify_all()
        if stage in FINAL_STAGES:
            self._on_end(stage)


class Deployer:
    """Takes model files and turns them into versions.

    `describe` reads a file's signature and raises `adapters.server.BadArtefact`. `on_end` hears how each accepted
    deployment ended.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        artefacts: ArtefactStore,
        serving: InferenceServing,
        routing: GatewayRouting,
        describe: Callable[[Path], Awaitable[Signature]],
        on_end: Callable[[DeployStage], None] = lambda _stage: None,
    ) -> None:
        self._registry = registry
        self._artefacts = artefacts
        self._serving = serving
        self._routing = routing
        self._describe = describe
        self._on_end = on_end
        self._going_live: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, request: DeployRequest, chunks: AsyncIterator[bytes]) -> Deployment:
        """Receive and check a file, and register it; the rest happens in the background.

        Raises, before anything changed: BadModelName, NameClash, BadVersionNumber, VersionExists, ArtefactTooLarge,
        EmptyArtefact, BadArtefact, Untypable, BreakingChange.
        """
        self._registry.check_name(request.model)
        if request.number is not None and not 1 <= request.number <= MAX_VERSION:
            raise BadVersionNumber(request.number)
        staged = await self._artefacts.receive(chunks)
        try:
            same = self._registry.find_same(model=request.model, number=request.number, digest=staged.digest)
            version = same or await self._register(request, staged)
        finally:
            self._artefacts.drop(staged)
        deployment = Deployment(version, on_end=self._on_end)
        if same is not None and not self._worth_another_try(same):
            await deployment.report(DeployStage.UNCHANGED, self._unchanged(same))
            return deployment
        again = " (again; it did not get to serve before)" if same is not None else ""
        await deployment.report(
            DeployStage.REGISTERED,
            f"{version.model} version {version.number}, {version.size:,} bytes, {version.digest[:19]}{again}",
        )
        for note in version.signature.notes:
            await deployment.report(DeployStage.NOTED, note)
        task = asyncio.create_task(self._bring_up(deployment, request), name=f"deploy {version.model}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return deployment

    async def close(self) -> None:
        """Stop what is in progress; versions that were being loaded are marked at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _register(self, request: DeployRequest, staged: StagedArtefact) -> Version:
        try:
            signature = await self._describe(staged.path)
        except BadArtefact as error:
            # The caller knows the file by another name than that of our temporary copy.
            raise BadArtefact(str(error).replace(str(staged.path), request.source)) from error
        contract = self._contract(request.model, signature)
        self._artefacts.keep(staged)
        return self._registry.register(
            model=request.model,
            number=request.number,
            digest=staged.digest,
            size=staged.size,
            signature=signature,
            contract=contract,
        )

    def _contract(self, model: str, signature: Signature) -> Contract:
        locked = self._registry.locked_contract(model)
        if locked is not None:
            verdict = compare(locked, signature)
            if verdict.outcome is Outcome.BREAKING:
                raise BreakingChange(verdict)
        return derive(model, signature, locked)

    async def _bring_up(self, deployment: Deployment, request: DeployRequest) -> None:
        try:
            await deployment.report(DeployStage.LOADING, f"loading on {self._serving.server.name}")
            await self._serving.load(deployment.model, deployment.version)
            await deployment.report(DeployStage.READY, self._ready(deployment))
            async with self._going_live[model_key(deployment.model)]:
                await self._go_live(deployment, request)
        except LoadRefused as refused:
            await deployment.report(DeployStage.FAILED, str(refused))
        except Exception as error:
            # The last line of a background task: whatever it was, the person who waits must hear of it.
            _log.exception("deployment of %s version %d", deployment.model, deployment.version)
            await deployment.report(
                DeployStage.FAILED,
                f"{deployment.model} version {deployment.version} is loaded but does not serve callers: {error}",
            )

    async def _go_live(self, deployment: Deployment, request: DeployRequest) -> None:
        model, version = deployment.model, deployment.version
        stable = self._registry.model(model).stable
        if stable is None:
            await self._routing.promote(model, version)
            await deployment.report(DeployStage.LIVE, f"{model} version {version} answers all callers")
        elif request.start_rollout is None:
            await deployment.report(
                DeployStage.UNROUTED,
                f"version {stable} goes on answering; `penstock rollout start {model} {version}` moves callers over",
            )
        else:
            rollout = await request.start_rollout(model, version)
            await deployment.report(
                DeployStage.ROLLOUT, f"rollout {rollout} moves callers from version {stable} to {version}", rollout
            )

    def _worth_another_try(self, same: Version) -> bool:
        """It failed to load, or it is ready and the routes to a first version could not be published."""
        if same.state is VersionState.READY:
            return self._registry.model(same.model).stable is None
        return same.state is VersionState.FAILED

    def _ready(self, deployment: Deployment) -> str:
        readiness = self._serving.readiness()[(deployment.model, deployment.version)]
        return f"loaded; a test inference took {readiness.probe_s * 1000:.1f} ms"

    def _unchanged(self, same: Version) -> str:
        what = f"these bytes are already {same.model} version {same.number}"
        model = self._registry.model(same.model)
        if same.state is not VersionState.READY:
            return f"{what}, which is being loaded; nothing changed"
        if same.number == model.stable:
            return f"{what}, which answers all callers; nothing changed"
        if same.number == model.candidate:
            return f"{what}, which is being rolled out; nothing changed"
        return f"{what}; nothing changed. `penstock rollout start {same.model} {same.number}` moves callers to it"
