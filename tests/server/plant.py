"""A control plane in the test's own process: real SQLite, real artefact store, real compile, real inference.

What stands in for Envoy compiles each publication with the real compiler and remembers what came; the end-to-end
tests use Envoy itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.onnx.describe import describe
from adapters.server import Address
from adapters.signature import Signature
from gateway.artefacts import ArtefactStore
from gateway.checks import ContractCheck
from gateway.database import open_database
from gateway.deploy import Deployer, DeployEvent, DeployRequest, StartRollout
from gateway.envoy.ads import Rejected
from gateway.envoy.compile import compile as compile_state
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.state import GatewayState, ModelRoutes
from gateway.envoy.yaml_config import EnvoyForm, envoy_yaml
from gateway.golden import GoldenStore
from gateway.health import GatewayHealth
from gateway.limits import LimitPolicy
from gateway.line_evidence import LineTraffic
from gateway.registry import Registry
from gateway.routing import GatewayRouting
from gateway.server.metrics import Metrics
from gateway.server.operators import operators_app
from gateway.server.public import public_app
from gateway.serving import InferenceServing
from gateway.upkeep import Upkeep
from rollout.clock import SystemClock
from rollout.controller import Controller
from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_store import FeedbackStore
from rollout.evidence.recent import RecentTraffic
from rollout.journal import Journal
from rollout.performer import Patience
from rollout.ports import Tick
from rollout.settings import ControllerSettings
from tests.clocks import ManualClock
from tests.server.onnx_server import OnnxServer

ARTEFACT_LIMIT = 1_000_000
ENVOY = EnvoySettings(
    listen=Address("127.0.0.1", 8080),
    admin=Address("127.0.0.1", 9901),
    control_grpc=Address("127.0.0.1", 9902),
    control_http=Address("127.0.0.1", 9903),
)


_DESCRIBED: dict[bytes, Signature] = {}


async def described(path: Path) -> Signature:
    """The real description, made once per file content: each one starts a process."""
    content = await asyncio.to_thread(path.read_bytes)
    if content not in _DESCRIBED:
        _DESCRIBED[content] = await describe(path)
    return _DESCRIBED[content]


@dataclass
class RecordingDataPlane:
    """What Envoy was told. `refusal`: why it refuses the next publications."""

    states: list[GatewayState] = field(default_factory=list)
    leases: list[dict[str, int]] = field(default_factory=list)
    mirrors: list[dict[str, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    refusal: str = ""

    async def publish(self, state: GatewayState) -> None:
        compile_state(state, ENVOY)
        if self.refusal:
            raise Rejected({"routes": self.refusal})
        self.states.append(state)
        self.log.append("publish")

    async def lease(self, weights: Mapping[str, int], mirrors: Mapping[str, int]) -> None:
        self.leases.append(dict(weights))
        self.mirrors.append(dict(mirrors))
        self.log.append("lease")

    def routes(self, model: str) -> ModelRoutes | None:
        return next((m for m in self.states[-1].models if m.model == model), None)


class NoEvidence:
    """No traffic: every tick is empty, so that rollouts move by operators' words only."""

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        return {model: Tick(at=0.0, seconds=0.05) for model in models}


class Plant:
    """One data directory and what runs on it. A second `Plant` on the same directory is a restarted one."""

    MIRROR_CEILING_BP = 5_000

    def __init__(self, data_dir: Path, *, server: OnnxServer | None = None) -> None:
        self.clock = ManualClock()
        self.artefacts = ArtefactStore(root=data_dir / "artefacts", limit_bytes=ARTEFACT_LIMIT)
        self.artefacts.prepare()
        self.connection = open_database(data_dir / "penstock.db")
        self.registry = Registry(connection=self.connection, clock=self.clock, artefact_path=self.artefacts.path_of)
        self.server = server or OnnxServer()
        self.data_plane = RecordingDataPlane()
        self.serving = InferenceServing(registry=self.registry, server=self.server, clock=self.clock)
        self.routing = GatewayRouting(
            registry=self.registry,
            server=self.server,
            data_plane=self.data_plane,
            limits=LimitPolicy(),
            max_mirror_bp=self.MIRROR_CEILING_BP,
            failing=self.serving.failing,
        )
        self.desk = FeedbackDesk(FeedbackStore(connection=open_database(data_dir / "feedback.db"), clock=self.clock))
        self.recent = RecentTraffic(desk=self.desk, clock=self.clock)
        self.journal = Journal(open_database(data_dir / "rollouts.db"))
        self.controller = Controller(
            serving=self.serving,
            routing=self.routing,
            evidence=NoEvidence(),
            journal=self.journal,
            clock=SystemClock(),
            settings=ControllerSettings(turn_s=0.05),
            checks=(ContractCheck(registry=self.registry),),
            patience=Patience(first=0.05, longest=0.05, drain=0.0),
            on_change=lambda status: self.metrics.on_change(status),
            traffic=LineTraffic(self.recent),
        )
        self.metrics = Metrics(
            work=lambda: self.controller.work(),
            registry=self.registry,
            serving=self.serving,
            desk=self.desk,
            active=self.controller.active,
        )
        self.envoy_live = True
        self.health = GatewayHealth(
            registry=self.registry, serving=self.serving, envoy_live=self._envoy_live, clock=self.clock
        )
        self.deployer = Deployer(
            registry=self.registry,
            artefacts=self.artefacts,
            serving=self.serving,
            routing=self.routing,
            describe=described,
            on_end=self.metrics.deployed,
        )
        self.upkeep = Upkeep(routing=self.routing, serving=self.serving)
        self.operators = operators_app(
            registry=self.registry,
            deployer=self.deployer,
            serving=self.serving,
            controller=self.controller,
            health=self.health,
            metrics=self.metrics,
            golden=GoldenStore(data_dir / "golden"),
            envoy_yaml=self._envoy_yaml,
            version="0.0.0",
        )
        self.public = public_app(registry=self.registry, health=self.health, desk=self.desk, authority="127.0.0.1:8080")

    async def _envoy_live(self) -> bool:
        return self.envoy_live

    def _envoy_yaml(self, form: EnvoyForm) -> str:
        return envoy_yaml(form, self.routing.state(), ENVOY, self.routing.weights())

    async def deploy(
        self, model: str, artefact: bytes, *, number: int | None = None, start_rollout: StartRollout | None = None
    ) -> list[DeployEvent]:
        """Deploy and wait; the events of the whole deployment."""
        request = DeployRequest(model=model, number=number, start_rollout=start_rollout, source="model.onnx")
        deployment = await self.deployer.accept(request, chunked(artefact))
        return [event async for event in deployment.events()]

    def close(self) -> None:
        self.connection.close()


async def chunked(body: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
