"""The composition root: makes every part of the control plane from the settings and joins them.

`gateway.stack.up` starts and stops what is made here, around the processes of Envoy and Triton. No part knows this
module; each gets its collaborators by keyword. The two HTTP applications are `gateway.front`'s.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
import httpx

from adapters.onnx.describe import describe
from adapters.server import Address, InferenceServer, Served
from adapters.triton.descriptors import inference_service_files
from adapters.triton.model_service import add_model_service
from gateway.adoption import AutoAdoption
from gateway.artefacts import ArtefactStore
from gateway.checks import ContractCheck
from gateway.contract.model import Contract
from gateway.database import open_database
from gateway.deploy import AdoptRequest, Deployer
from gateway.envoy.ads import SERVER_OPTIONS, AdsServer
from gateway.envoy.data_plane import EnvoyDataPlane
from gateway.envoy.settings import EnvoySettings
from gateway.golden import GoldenCheck, GoldenStore
from gateway.health import GatewayHealth
from gateway.limits import LimitPolicy
from gateway.line_evidence import LineEvidence, LineTraffic
from gateway.mirror import pairs
from gateway.registry import Registry
from gateway.routing import GatewayRouting
from gateway.server.access_log import add_access_log
from gateway.server.caller_metrics import CallerMetrics
from gateway.server.grpc_health import add_health
from gateway.server.metrics import Metrics
from gateway.server.mirror_metrics import MirrorMetrics
from gateway.server.reflection import add_reflection
from gateway.serving import InferenceServing
from gateway.settings import Settings
from gateway.stack.envoy import envoy_live
from gateway.stack.ports import InternalPorts
from gateway.upkeep import Upkeep
from rollout.clock import SystemClock
from rollout.controller import Controller
from rollout.evidence.callers import CallerLog, CountedCallers
from rollout.evidence.chosen import Chosen, without_prometheus
from rollout.evidence.combine import Combined
from rollout.evidence.envoy import EnvoyEvidence
from rollout.evidence.feedback import FeedbackDesk, FeedbackEvidence
from rollout.evidence.feedback_store import FeedbackStore
from rollout.evidence.history import StableHistory
from rollout.evidence.history_store import HistoryStore
from rollout.evidence.mirror.labels import PairedLabelStore
from rollout.evidence.mirror.source import MirrorEvidence
from rollout.evidence.mirror.wire import Pair
from rollout.evidence.predicted import PredictedClasses
from rollout.evidence.prometheus import PrometheusEvidence
from rollout.evidence.recent import RecentTraffic
from rollout.evidence.subject import Subject
from rollout.journal import Journal
from rollout.notifier import Notifier
from rollout.settings import ControllerSettings

_log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


def envoy_settings(settings: Settings, ports: InternalPorts) -> EnvoySettings:
    return EnvoySettings(
        listen=Address(settings.host, settings.port),
        admin=Address(LOOPBACK, ports.envoy_admin),
        control_grpc=Address(LOOPBACK, ports.control_grpc),
        control_http=Address(LOOPBACK, ports.control_http),
        sticky_header=settings.sticky_header,
        allowed_origins=settings.allowed_origins,
        lease_ttl_s=settings.lease_ttl_s,
        max_body_bytes=settings.max_body_bytes,
        mirror=Address(LOOPBACK, ports.mirror) if settings.mirror_max_share > 0 else None,
    )


@dataclass(slots=True)
class Control:
    """The control plane, made and not yet running."""

    registry: Registry
    serving: InferenceServing
    routing: GatewayRouting
    data_plane: EnvoyDataPlane
    ads: AdsServer
    controller: Controller
    upkeep: Upkeep
    health: GatewayHealth
    deployer: Deployer
    adoption: AutoAdoption | None
    desk: FeedbackDesk
    history: StableHistory
    golden: GoldenStore
    metrics: Metrics
    envoy: EnvoySettings
    grpc_server: grpc.aio.Server
    mirror: MirrorEvidence
    _prometheus: PrometheusEvidence
    _evidence: EnvoyEvidence
    _notifier: Notifier
    _envoy_admin: httpx.AsyncClient
    _server: InferenceServer
    _connections: Sequence[sqlite3.Connection]

    async def close(self) -> None:
        """Let go of everything, after the servers that use it have stopped."""
        await self.deployer.close()
        await self.desk.close()
        await self.history.close()
        await self._notifier.aclose()
        await self._evidence.aclose()
        await self.mirror.aclose()
        await self._prometheus.aclose()
        await self._envoy_admin.aclose()
        await self._server.close()
        for connection in self._connections:
            connection.close()


def build(settings: Settings, ports: InternalPorts, server: InferenceServer) -> Control:
    """Make the control plane. Call it inside the event loop that will run it."""
    clock = SystemClock()
    envoy = envoy_settings(settings, ports)
    artefacts = ArtefactStore(root=settings.data_dir / "artefacts", limit_bytes=settings.max_artefact_bytes)
    artefacts.prepare()
    connection = open_database(settings.database)
    registry = Registry(connection=connection, clock=clock, artefact_path=artefacts.path_of)

    # Its own file: a burst of predictions must not hold up a journal record.
    feedback_connection = open_database(settings.data_dir / "feedback.db")
    desk = FeedbackDesk(FeedbackStore(connection=feedback_connection, clock=clock))
    golden = GoldenStore(settings.data_dir / "golden")
    paired_labels = PairedLabelStore(connection=feedback_connection, clock=clock)

    serving = InferenceServing(registry=registry, server=server, clock=clock)
    ads = AdsServer(lease_ttl_s=settings.lease_ttl_s)
    data_plane = EnvoyDataPlane(ads=ads, settings=envoy)
    limits = LimitPolicy(ceiling_bytes=settings.max_body_bytes, timeout_s=settings.prediction_timeout_s)
    routing = GatewayRouting(
        registry=registry,
        server=server,
        data_plane=data_plane,
        limits=limits,
        failing=serving.failing,
        max_mirror_bp=round(settings.mirror_max_share * 100),
    )

    metrics = Metrics(
        registry=registry,
        serving=serving,
        desk=desk,
        active=lambda: controller.active(),
        work=lambda: controller.work(),
        more=[MirrorMetrics(lambda: mirror.health), CallerMetrics(lambda: callers, lambda: history)],
    )
    evidence = EnvoyEvidence(admins=[envoy.admin], clock=clock)

    def subject(line: str) -> Subject | None:
        return controller.subject(line)

    def exposed(model: str) -> Mapping[int, float]:
        found = (controller.subject(line.line.name) for line in registry.model(model).lines)
        return {
            version: subject.exposed_at
            for subject in found
            if subject is not None and subject.exposed_at is not None
            for version in (subject.stable, subject.candidate)
        }

    def mirrored() -> Sequence[Pair]:
        shares = routing.mirrors()
        return pairs(routing.state(), shares, subject) if any(shares.values()) else ()

    def stable_lines() -> Mapping[tuple[str, int], str]:
        return {(line.line.model, line.stable): line.line.name for line in registry.lines() if line.stable is not None}

    # Its own file, like the feedback: what it writes is large, and nothing waits for it.
    history_connection = open_database(settings.data_dir / "history.db")
    history = StableHistory(store=HistoryStore(history_connection), stable=stable_lines, clock=clock)
    callers = CallerLog(clock=clock, history=history)
    recent = RecentTraffic(desk=desk, clock=clock)
    classes = PredictedClasses(clock)
    prometheus = PrometheusEvidence(subject=subject, clock=clock)
    mirror = MirrorEvidence(
        evaluator=Address(LOOPBACK, ports.mirror), wanted=mirrored, desk=desk, labels=paired_labels, clock=clock
    )
    notifier = Notifier(clock=clock)
    controller = Controller(
        serving=serving,
        routing=routing,
        evidence=Combined(
            Chosen(LineEvidence(CountedCallers(evidence, callers)), subject=subject, listens=without_prometheus),
            prometheus,
            LineEvidence(Combined(FeedbackEvidence(desk=desk, clock=clock, exposed=exposed), classes)),
            mirror,
        ),
        journal=Journal(connection),
        clock=clock,
        settings=ControllerSettings(lease_ttl_s=settings.lease_ttl_s),
        checks=(
            ContractCheck(registry=registry),
            GoldenCheck(registry=registry, server=server, store=golden, subject=subject),
        ),
        on_change=metrics.on_change,
        notifier=notifier,
        history=history,
        traffic=LineTraffic(recent),
    )
    deployer = Deployer(
        registry=registry,
        artefacts=artefacts,
        serving=serving,
        routing=routing,
        describe=describe,
        on_end=metrics.deployed,
    )

    async def adopt(served: Served) -> None:
        deployment = await deployer.adopt(
            AdoptRequest(name=served.name, served_version=served.version or None, start_rollout=start_rollout)
        )
        _log.info("%s of the repository is being adopted as %s.%d", served, deployment.model, deployment.version)

    async def start_rollout(line: str, candidate: int) -> int:
        stable = registry.line(line).stable
        assert stable is not None, "a line without a stable version starts no rollout"
        return (await controller.start(line, candidate, stable, by="adoption")).rollout_id

    adoption = None
    if settings.adopt_all:
        # Of a server of our own we may ask to load what somebody put into its repository.
        embedded = settings.triton is None
        adoption = AutoAdoption(server=server, known=deployer.adopted, adopt=adopt, load=embedded)

    # Plain HTTP: there are no certificate authorities to read.
    admin_client = httpx.AsyncClient(base_url=f"http://{envoy.admin}", trust_env=False, verify=False)
    health = GatewayHealth(registry=registry, serving=serving, envoy_live=lambda: envoy_live(admin_client), clock=clock)

    def contracts() -> Sequence[Contract]:
        return registry.contracts()

    grpc_server = grpc.aio.server(options=[*SERVER_OPTIONS, ("grpc.so_reuseport", 0)])
    ads.add_to(grpc_server)
    add_access_log(
        grpc_server, desk=desk, classes=classes, callers=callers, recent=recent, sticky_header=settings.sticky_header
    )
    add_reflection(grpc_server, contracts=contracts, more_files=inference_service_files())
    add_health(grpc_server, health=health, contracts=contracts)
    add_model_service(grpc_server, index=health.versions, ready=health.version_ready)

    return Control(
        registry=registry,
        serving=serving,
        routing=routing,
        data_plane=data_plane,
        ads=ads,
        controller=controller,
        upkeep=Upkeep(routing=routing, serving=serving),
        health=health,
        deployer=deployer,
        adoption=adoption,
        desk=desk,
        history=history,
        golden=golden,
        metrics=metrics,
        envoy=envoy,
        grpc_server=grpc_server,
        mirror=mirror,
        _prometheus=prometheus,
        _evidence=evidence,
        _notifier=notifier,
        _envoy_admin=admin_client,
        _server=server,
        _connections=(connection, feedback_connection, history_connection),
    )
