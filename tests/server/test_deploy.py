"""A deployment, from bytes to a version that serves; and everything that stops it before it changes anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.server import BadArtefact
from gateway.artefacts import ArtefactTooLarge
from gateway.contract.majors import BreakingChange
from gateway.contract.names import BadModelName
from gateway.deploy import BadVersionNumber, DeployEvent, DeployRequest, DeployStage
from gateway.registry import VersionExists, VersionState
from tests import models
from tests.server.plant import ARTEFACT_LIMIT, Plant, chunked

V1, V2 = models.add(1), models.add(2)


def stages(events: list[DeployEvent]) -> list[DeployStage]:
    return [event.stage for event in events]


class Rollouts:
    """Stands where the controller stands: remembers which rollouts were asked for."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.refusal: Exception | None = None

    async def start(self, model: str, candidate: int) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.started.append((model, candidate))
        return len(self.started)


async def test_the_first_version_goes_live(plant: Plant) -> None:
    events = await plant.deploy("adder", V1)
    assert stages(events) == [DeployStage.REGISTERED, DeployStage.LOADING, DeployStage.READY, DeployStage.LIVE]
    assert events[-1].message == "adder version 1 answers all callers"
    routes = plant.data_plane.routes("adder")
    assert routes is not None
    assert (routes.stable, routes.canary) == (1, None)
    assert routes.served(1).served_name == "adder.1"
    assert plant.registry.version("adder", 1).state is VersionState.READY
    assert plant.registry.locked_contract("adder") == plant.registry.version("adder", 1).contract


async def test_an_output_that_cannot_be_served_is_told(plant: Plant) -> None:
    events = await plant.deploy("zipped", models.zipmap_classifier())
    assert stages(events)[:2] == [DeployStage.REGISTERED, DeployStage.NOTED]
    assert "zipmap" in events[1].message
    assert events[-1].stage is DeployStage.LIVE


async def test_a_later_version_starts_a_rollout_and_takes_no_traffic_by_itself(plant: Plant) -> None:
    rollouts = Rollouts()
    await plant.deploy("adder", V1, start_rollout=rollouts.start)
    events = await plant.deploy("adder", V2, start_rollout=rollouts.start)
    assert stages(events)[-1] is DeployStage.ROLLOUT
    assert events[-1].rollout == 1
    assert rollouts.started == [("adder", 2)]
    routes = plant.data_plane.routes("adder")
    assert routes is not None
    assert (routes.stable, routes.canary) == (1, None)


async def test_a_later_version_can_be_left_out_of_the_routes(plant: Plant) -> None:
    await plant.deploy("adder", V1)
    events = await plant.deploy("adder", V2)
    assert events[-1].stage is DeployStage.UNROUTED
    assert "penstock rollout start adder 2" in events[-1].message


async def test_a_rollout_that_is_refused_leaves_a_ready_version_and_says_why(plant: Plant) -> None:
    rollouts = Rollouts()
    await plant.deploy("adder", V1)
    rollouts.refusal = RuntimeError("rollout 1 is under way")
    events = await plant.deploy("adder", V2, start_rollout=rollouts.start)
    assert events[-1].stage is DeployStage.FAILED
    assert "rollout 1 is under way" in events[-1].message
    assert plant.registry.version("adder", 2).state is VersionState.READY


async def test_the_same_file_again_is_a_no_op_that_says_so(plant: Plant) -> None:
    await plant.deploy("adder", V1)
    published = len(plant.data_plane.states)
    events = await plant.deploy("adder", V1)
    assert stages(events) == [DeployStage.UNCHANGED]
    assert events[0].message == ("these bytes are already adder version 1, which answers all callers; nothing changed")
    assert len(plant.registry.versions("adder")) == 1
    assert len(plant.data_plane.states) == published
    assert plant.server.loads == {"adder.1": 1}


async def test_a_version_is_never_overwritten(plant: Plant) -> None:
    await plant.deploy("adder", V1)
    with pytest.raises(VersionExists):
        await plant.deploy("adder", V2, number=1)
    assert plant.server.loads == {"adder.1": 1}


@pytest.mark.parametrize("number", [0, -1, 2**31])
async def test_a_version_number_is_a_positive_whole_number(plant: Plant, number: int) -> None:
    with pytest.raises(BadVersionNumber, match="from 1 to"):
        await plant.deploy("adder", V1, number=number)


async def test_a_broken_file_is_refused_before_anything_changes(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(BadArtefact, match=r"model\.onnx"):
        await plant.deploy("adder", b"this is not a model")
    assert plant.registry.models() == ()
    assert plant.data_plane.states == []
    assert [path for path in (tmp_path / "artefacts").rglob("*") if path.is_file()] == []


async def test_a_file_above_the_limit_is_refused_before_anything_changes(plant: Plant) -> None:
    with pytest.raises(ArtefactTooLarge):
        await plant.deploy("adder", bytes(ARTEFACT_LIMIT + 1))
    assert plant.registry.models() == ()


async def test_a_bad_name_is_refused_before_the_upload_is_read(plant: Plant) -> None:
    with pytest.raises(BadModelName):
        await plant.deploy("Adder", b"")


async def test_a_change_that_breaks_callers_is_refused_with_the_list(plant: Plant) -> None:
    await plant.deploy("adder", V1)
    with pytest.raises(BreakingChange) as refused:
        await plant.deploy("adder", models.add(1, shape=(5,)))
    assert [change.field for change in refused.value.verdict.breaking] == ["inputs.x", "outputs.y"]
    assert [v.number for v in plant.registry.versions("adder")] == [1]


async def test_a_version_that_does_not_load_is_recorded_and_never_routed(plant: Plant) -> None:
    plant.server.refused["adder.1"] = "out of memory"
    events = await plant.deploy("adder", V1)
    assert events[-1].stage is DeployStage.FAILED
    assert "out of memory" in events[-1].message
    version = plant.registry.version("adder", 1)
    assert (version.state, version.reason) == (VersionState.FAILED, "out of memory")
    assert plant.registry.line("adder").stable is None
    assert plant.registry.locked_contract("adder") is None
    await plant.upkeep.once()
    assert plant.data_plane.routes("adder") is None


async def test_deploying_a_failed_version_again_tries_again(plant: Plant) -> None:
    plant.server.refused["adder.1"] = "out of memory"
    await plant.deploy("adder", V1)
    plant.server.refused.clear()
    events = await plant.deploy("adder", V1)
    assert events[-1].stage is DeployStage.LIVE
    assert events[-1].version == 1


async def test_a_model_whose_first_version_failed_goes_live_with_the_next(plant: Plant) -> None:
    plant.server.refused["adder.1"] = "out of memory"
    await plant.deploy("adder", V1)
    events = await plant.deploy("adder", V2, start_rollout=Rollouts().start)
    assert events[-1].stage is DeployStage.LIVE
    assert plant.registry.line("adder").stable == 2


async def test_routes_that_envoy_refuses_are_reported_and_taken_back(plant: Plant) -> None:
    plant.data_plane.refusal = "Envoy refused the routes: no such cluster"
    events = await plant.deploy("adder", V1)
    assert events[-1].stage is DeployStage.FAILED
    assert "no such cluster" in events[-1].message
    assert plant.registry.line("adder").stable is None
    plant.data_plane.refusal = ""
    assert (await plant.deploy("adder", V1))[-1].stage is DeployStage.LIVE


async def test_whoever_watches_late_sees_the_whole_deployment(plant: Plant) -> None:
    deployment = await plant.deployer.accept(DeployRequest("adder"), chunked(V1))
    first = [event async for event in deployment.events()]
    second = [event async for event in deployment.events()]
    assert first == second
