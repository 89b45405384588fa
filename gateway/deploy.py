"""The deploy use case: a model file, or a model that the server has already, becomes a version that serves.

    receive, or find on the server -> describe -> contract verdict -> register -> load -> probe -> live, or a rollout

Everything up to `register` changes nothing and is refused with a reason; from there on a version exists, and what
goes wrong is recorded on it. A version that was not proven ready is never routed.

Called by the operators' API. What a rollout does afterwards is the controller's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adapters.server import BadArtefact, Served
from adapters.signature import Signature
from gateway.adoption import NotAdoptable, find, public_name
from gateway.artefacts import ArtefactStore, StagedArtefact
from gateway.contract.compare import Verdict
from gateway.contract.lines import Line
from gateway.contract.lock_file import compare_contracts
from gateway.contract.majors import Joined, join
from gateway.contract.model import Contract
from gateway.registry import Registry, Version, VersionState
from gateway.routing import GatewayRouting
from gateway.serving import InferenceServing
from rollout.ports import LoadRefused

_log = logging.getLogger(__name__)

MAX_VERSION = 2**31 - 1
"""Version numbers travel as decimal headers and metric labels; nobody needs more."""

StartRollout = Callable[[str, int], Awaitable[int]]
"""Start a rollout of a routing line's name and a candidate; the rollout's id. Raises with a reason for a person."""


class LockContradicted(Exception):
    """The lock that came with the deployment is not the one that callers were given here."""

    def __init__(self, model: str, verdict: Verdict) -> None:
        differences = "\n".join(f"  - {change}" for change in verdict.breaking)
        super().__init__(
            f"the lock file does not fit what callers of {model} were given here:\n{differences}\n"
            "Export the lock again with `penstock api lock`, or deploy without it."
        )
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
class ApiChoice:
    """Which API a version is meant for. By default the newest one whose callers it does not break.

    `major` names it; `new_major` opens the next one for a version that would break all there are. `locks` are
    contracts that were published elsewhere, from a lock file: the first version here takes their names and numbers.
    """

    major: int | None = None
    new_major: bool = False
    locks: tuple[Contract, ...] = ()


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What is asked for.

    `number` None takes the next free one. `start_rollout` is used when the line already has a stable version;
    None leaves the new version loaded and out of the routes. `source` is what the caller calls the file.
    """

    model: str
    number: int | None = None
    start_rollout: StartRollout | None = None
    source: str = "the file"
    api: ApiChoice = ApiChoice()


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """What is asked for: the server's `name` (and version, by default the highest that is ready) of a model.

    `model` None makes the public name from the server's. The rest is as in `DeployRequest`.
    """

    name: str
    served_version: str | None = None
    model: str | None = None
    start_rollout: StartRollout | None = None
    api: ApiChoice = ApiChoice()


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
        self._going_live: defaultdict[Line, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, request: DeployRequest, chunks: AsyncIterator[bytes]) -> Deployment:
        """Receive and check a file, and register it; the rest happens in the background.

        Raises, before anything changed: BadModelName, NameClash, BadVersionNumber, VersionExists, ArtefactTooLarge,
        EmptyArtefact, BadArtefact, BreakingChange, BadApiMajor, LockContradicted.
        """
        self._registry.check_name(request.model)
        if request.number is not None and not 1 <= request.number <= MAX_VERSION:
            raise BadVersionNumber(request.number)
        staged = await self._artefacts.receive(chunks)
        try:
            same = self._registry.find_same(model=request.model, number=request.number, digest=staged.digest)
            if same is not None:
                return await self._go_on(same, start_rollout=request.start_rollout, again=True)
            signature = await self._signature(staged, request.source)
            joined = self._join(request.model, signature, request.api)
            self._artefacts.keep(staged)
        finally:
            self._artefacts.drop(staged)
        version = self._registry.register(
            model=request.model,
            number=request.number,
            digest=staged.digest,
            size=staged.size,
            signature=signature,
            contract=joined.contract,
        )
        return await self._go_on(version, start_rollout=request.start_rollout, note=joined.note)

    async def adopt(self, request: AdoptRequest) -> Deployment:
        """Make a version of a model that the inference server has already; the rest happens in the background.

        Raises, before anything changed: NotInRepository, NotAdoptable, BadModelName, NameClash, BreakingChange,
        BadApiMajor, LockContradicted, and ServerError when the server does not describe it.
        """
        model = public_name(request.name) if request.model is None else request.model
        self._registry.check_name(model)
        if (ours := self._ours(request.name)) is not None:
            raise NotAdoptable(f"{request.name!r} is {ours.model} version {ours.number}, which Penstock loaded itself")
        found = await find(self._serving.server, request.name, request.served_version)
        same = self._registry.find_same(model=model, number=None, digest=found.digest)
        if same is not None:
            return await self._go_on(same, start_rollout=request.start_rollout, again=True)
        joined = self._join(model, found.signature, request.api)
        version = self._registry.register(
            model=model,
            number=self._own_number(model, found.served),
            digest=found.digest,
            size=0,
            signature=found.signature,
            contract=joined.contract,
            served=found.served,
        )
        return await self._go_on(version, start_rollout=request.start_rollout, note=joined.note)

    def adopted(self, served: Served) -> bool:
        """Whether a model of the server is a version here, adopted or loaded by us. An empty version means any."""
        return self._ours(served.name) is not None or any(
            known.name == served.name and served.version in ("", known.version) for known in self._registry.adopted()
        )

    def _ours(self, served_name: str) -> Version | None:
        """The version that we loaded under this name."""
        model, _, _number = served_name.rpartition(".")
        if self._registry.find_model(model) is None:
            return None
        versions = [v for v in self._registry.versions(model) if v.served is None]
        return next((v for v in versions if self._serving.server.served_name(v.model, v.number) == served_name), None)

    async def _go_on(
        self, version: Version, *, start_rollout: StartRollout | None, again: bool = False, note: str = ""
    ) -> Deployment:
        """`again`: what was sent is a version already. `note` is for its owner."""
        deployment = Deployment(version, on_end=self._on_end)
        if again and not self._worth_another_try(version):
            await deployment.report(DeployStage.UNCHANGED, self._unchanged(version))
            return deployment
        await deployment.report(
            DeployStage.REGISTERED, _described(version) + " (again; it did not get to serve before)" * again
        )
        for said in (*version.signature.notes, *_untyped(version.contract), *filter(None, [note])):
            await deployment.report(DeployStage.NOTED, said)
        task = asyncio.create_task(self._bring_up(deployment, version, start_rollout), name=f"deploy {version.model}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return deployment

    async def close(self) -> None:
        """Stop what is in progress; versions that were being loaded are marked at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _signature(self, staged: StagedArtefact, source: str) -> Signature:
        try:
            return await self._describe(staged.path)
        except BadArtefact as error:
            # The caller knows the file by another name than that of our temporary copy.
            raise BadArtefact(str(error).replace(str(staged.path), source)) from error

    def _join(self, model: str, signature: Signature, api: ApiChoice) -> Joined:
        here = {lock.major: lock for lock in self._registry.locks(model)}
        for given in api.locks:
            if given.major in here and (verdict := compare_contracts(given, here[given.major])).breaking:
                raise LockContradicted(model, verdict)
        locks = {lock.major: lock for lock in api.locks} | here
        return join(model, signature, tuple(locks.values()), major=api.major, new_major=api.new_major)

    def _own_number(self, model: str, served: Served) -> int | None:
        """The server's version number where it is free here: callers who pinned it go on being right."""
        own = int(served.version) if served.version.isdecimal() else 0
        taken = {version.number for version in self._registry.versions(model)}
        return own if 1 <= own <= MAX_VERSION and own not in taken else None

    async def _bring_up(self, deployment: Deployment, version: Version, start_rollout: StartRollout | None) -> None:
        try:
            await deployment.report(DeployStage.LOADING, f"loading on {self._serving.server.name}")
            await self._serving.load(deployment.model, deployment.version)
            await deployment.report(DeployStage.READY, self._ready(deployment))
            async with self._going_live[version.line]:
                await self._go_live(deployment, version.line, start_rollout)
        except LoadRefused as refused:
            await deployment.report(DeployStage.FAILED, str(refused))
        except Exception as error:
            # The last line of a background task: whatever it was, the person who waits must hear of it.
            _log.exception("deployment of %s version %d", deployment.model, deployment.version)
            await deployment.report(
                DeployStage.FAILED,
                f"{deployment.model} version {deployment.version} is loaded but does not serve callers: {error}",
            )

    async def _go_live(self, deployment: Deployment, line: Line, start_rollout: StartRollout | None) -> None:
        version = deployment.version
        stable = self._registry.line(line.name).stable
        if stable is None:
            await self._routing.promote(line.name, version)
            where = "" if line.major == 1 else f" of API major {line.major}"
            await deployment.report(DeployStage.LIVE, f"{line.model} version {version} answers all callers{where}")
        elif start_rollout is None:
            await deployment.report(
                DeployStage.UNROUTED,
                f"version {stable} goes on answering; "
                f"`penstock rollout start {line.name} {version}` moves callers over",
            )
        else:
            rollout = await start_rollout(line.name, version)
            await deployment.report(
                DeployStage.ROLLOUT, f"rollout {rollout} moves callers from version {stable} to {version}", rollout
            )

    def _worth_another_try(self, same: Version) -> bool:
        """It failed to load, or it is ready and the routes to a first version could not be published."""
        if same.state is VersionState.READY:
            return self._registry.line(same.line.name).stable is None
        return same.state is VersionState.FAILED

    def _ready(self, deployment: Deployment) -> str:
        readiness = self._serving.readiness()[(deployment.model, deployment.version)]
        return f"loaded; a test inference took {readiness.probe_s * 1000:.1f} ms"

    def _unchanged(self, same: Version) -> str:
        what = "these bytes are" if same.served is None else f"model {same.served} of the server is"
        what = f"{what} already {same.model} version {same.number}"
        line = self._registry.line(same.line.name)
        if same.state is not VersionState.READY:
            return f"{what}, which is being loaded; nothing changed"
        if same.number == line.stable:
            return f"{what}, which answers all callers; nothing changed"
        if same.number == line.candidate:
            return f"{what}, which is being rolled out; nothing changed"
        return f"{what}; nothing changed. `penstock rollout start {line.line.name} {same.number}` moves callers to it"


def _described(version: Version) -> str:
    if version.served is not None:
        return f"{version.model} version {version.number} is the server's own model {version.served}, adopted"
    return f"{version.model} version {version.number}, {version.size:,} bytes, {version.digest[:19]}"


def _untyped(contract: Contract) -> Iterator[str]:
    for obstacle in contract.obstacles:
        yield f"no typed API: {obstacle}. It is served through Open Inference Protocol"
