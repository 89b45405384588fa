"""Models that the server has already: described by it, versions like any other, and never taken down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from adapters.onnx.describe import describe
from adapters.server import Served
from gateway.adoption import AutoAdoption, NotAdoptable, NotInRepository, public_name
from gateway.contract.names import BadModelName
from gateway.deploy import AdoptRequest, DeployEvent, DeployStage
from gateway.serving import DRAIN_S
from tests import models
from tests.server.onnx_server import OnnxServer
from tests.server.plant import Plant

V1, V2 = models.add(1), models.add(2)


async def put(server: OnnxServer, name: str, artefact: bytes, folder: Path) -> None:
    """Somebody else puts a model into the server's repository."""
    path = folder / f"{name}.onnx"
    path.write_bytes(artefact)
    server.repository[name] = (artefact, await describe(path))


async def adopt(plant: Plant, name: str, **asked: object) -> list[DeployEvent]:
    deployment = await plant.deployer.adopt(AdoptRequest(name=name, **asked))  # type: ignore[arg-type]  # of the caller
    return [event async for event in deployment.events()]


@pytest.fixture
async def stocked(plant: Plant, tmp_path: Path) -> Plant:
    await put(plant.server, "Fraud_Model.v3", V1, tmp_path)
    return plant


async def test_a_model_of_the_server_gets_its_api_without_a_file(stocked: Plant) -> None:
    events = await adopt(stocked, "Fraud_Model.v3", model="fraud")
    assert events[-1].stage is DeployStage.LIVE
    version = stocked.registry.version("fraud", 1)
    assert version.served == Served("Fraud_Model.v3", "1")
    assert version.contract.predict_http_path == "/v1/models/fraud:predict"
    routes = stocked.data_plane.routes("fraud")
    assert routes is not None
    assert (routes.served(1).served_name, routes.served(1).served_version) == ("Fraud_Model.v3", "1")


async def test_its_public_name_is_made_from_the_servers(stocked: Plant) -> None:
    await adopt(stocked, "Fraud_Model.v3")
    assert [m.name for m in stocked.registry.models()] == ["fraud_model-v3"]
    with pytest.raises(BadModelName):
        public_name("123")


async def test_adopting_again_changes_nothing(stocked: Plant) -> None:
    await adopt(stocked, "Fraud_Model.v3")
    (event,) = await adopt(stocked, "Fraud_Model.v3")
    assert event.stage is DeployStage.UNCHANGED
    assert "is already fraud_model-v3 version 1, which answers all callers" in event.message


async def test_what_is_not_there_is_refused_with_what_is(stocked: Plant) -> None:
    with pytest.raises(NotInRepository, match=r"no model 'Fraud_Model\.v2' in its repository; it has Fraud_Model\.v3"):
        await adopt(stocked, "Fraud_Model.v2")
    with pytest.raises(NotAdoptable, match="no ready version 9; it has 1"):
        await adopt(stocked, "Fraud_Model.v3", served_version="9")
    await stocked.deploy("adder", V1)
    with pytest.raises(NotAdoptable, match=r"'adder\.1' is adder version 1, which Penstock loaded itself"):
        await adopt(stocked, "adder.1")
    assert [m.name for m in stocked.registry.models()] == ["adder"]


async def test_it_is_never_unloaded_by_us(stocked: Plant) -> None:
    await adopt(stocked, "Fraud_Model.v3", model="adder")
    # A file takes over from it, and nothing routes the server's own model any more.
    await stocked.deploy("adder", V2, start_rollout=None)
    await stocked.routing.promote("adder", 2)
    await stocked.serving.unload("adder", 1)
    for _ in range(3):
        await stocked.upkeep.once()
        stocked.clock.seconds += DRAIN_S + 1
    assert stocked.registry.line("adder").routed == {2}
    assert "Fraud_Model.v3" in stocked.server.loaded
    assert stocked.server.unloads == []


async def test_it_takes_part_in_rollouts_and_can_be_gone_back_to(stocked: Plant, tmp_path: Path) -> None:
    await stocked.deploy("adder", V2)
    started: list[tuple[str, int]] = []

    async def start(line: str, candidate: int) -> int:
        started.append((line, candidate))
        return 1

    events = await adopt(stocked, "Fraud_Model.v3", model="adder", start_rollout=start)
    assert events[-1].stage is DeployStage.ROLLOUT
    assert started == [("adder", 2)], "its number on the server, 1, is taken here"
    await stocked.routing.stage("adder", 2)
    await stocked.routing.promote("adder", 2)
    assert stocked.registry.line("adder").previous == 1


async def test_after_a_restart_of_the_server_it_is_loaded_again(stocked: Plant) -> None:
    await adopt(stocked, "Fraud_Model.v3")
    stocked.server.restart()
    await stocked.upkeep.once()
    assert stocked.serving.is_ready("fraud_model-v3", 1)


async def test_what_appears_is_adopted_by_itself_where_asked_for(plant: Plant, tmp_path: Path) -> None:
    async def adopt_served(served: Served) -> None:
        await adopt(plant, served.name)

    def watcher(*, load: bool) -> AutoAdoption:
        return AutoAdoption(server=plant.server, known=plant.deployer.adopted, adopt=adopt_served, load=load)

    await plant.deploy("adder", V1)
    await put(plant.server, "fraud", V2, tmp_path)
    await put(plant.server, "123", V2, tmp_path)  # no public name can be made of it
    await watcher(load=False).once()
    assert [m.name for m in plant.registry.models()] == ["adder"], "not loaded, and not ours to load"
    own = watcher(load=True)
    await own.once()
    assert [m.name for m in plant.registry.models()] == ["adder", "fraud"]
    await own.once()
    assert len(plant.registry.versions("fraud")) == 1
    plant.server.running = False
    await own.once()


@pytest.fixture
async def api(stocked: Plant) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=stocked.operators)
    async with httpx.AsyncClient(transport=transport, base_url="http://operators") as client:
        yield client


async def test_adoption_by_the_operators_api(api: httpx.AsyncClient) -> None:
    answer = await api.post("/api/v1/adoptions", json={"name": "Fraud_Model.v3", "model": "fraud"})
    assert answer.status_code == 200
    model = (await api.get("/api/v1/models/fraud")).json()
    assert model["versions"][0]["served"] == {"name": "Fraud_Model.v3", "version": "1"}
    missing = await api.post("/api/v1/adoptions", json={"name": "nothing"})
    assert (missing.status_code, missing.json()["details"][0]["reason"]) == (404, "NOT_IN_REPOSITORY")
