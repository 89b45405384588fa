"""Versions stay loaded and proven: through loads, restarts of the inference server, promotions and withdrawals."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.registry import VersionState
from gateway.serving import DRAIN_S, FRESH_S
from rollout.ports import LoadRefused
from tests import models
from tests.server.plant import Plant


@pytest.fixture
async def live(plant: Plant) -> Plant:
    await plant.deploy("adder", models.add(1))
    return plant


async def rounds_until_drained(plant: Plant) -> None:
    await plant.upkeep.once()
    plant.clock.seconds += DRAIN_S
    await plant.upkeep.once()


async def test_versions_are_loaded_again_after_the_server_restarted(live: Plant) -> None:
    live.server.restart()
    live.clock.seconds += FRESH_S
    assert not await live.serving.ready("adder", 1)
    await live.upkeep.once()
    assert await live.serving.ready("adder", 1)
    assert live.server.loads["adder.1"] == 2


async def test_a_server_that_does_not_answer_is_not_asked_to_load(live: Plant) -> None:
    live.server.running = False
    await live.upkeep.once()
    assert not live.serving.is_ready("adder", 1)
    assert live.registry.version("adder", 1).state is VersionState.READY, "the trouble is the server's"
    live.server.running = True
    await live.upkeep.once()
    assert live.serving.is_ready("adder", 1)
    assert live.server.loads["adder.1"] == 1


async def test_a_control_plane_that_restarts_finds_its_versions_again(live: Plant, tmp_path: Path) -> None:
    again = Plant(tmp_path, server=live.server)
    assert not again.serving.is_ready("adder", 1)
    await again.upkeep.once()
    assert again.serving.is_ready("adder", 1)
    assert live.server.loads["adder.1"] == 1
    again.close()


async def test_what_an_earlier_process_left_loaded_is_unloaded(live: Plant, tmp_path: Path) -> None:
    await live.deploy("adder", models.add(2))
    again = Plant(tmp_path, server=live.server)
    await rounds_until_drained(again)
    assert set(live.server.loaded) == {"adder.1"}
    again.close()


async def test_a_deployed_version_stays_loaded_until_it_is_unloaded(live: Plant) -> None:
    await live.deploy("adder", models.add(2))
    await rounds_until_drained(live)
    assert set(live.server.loaded) == {"adder.1", "adder.2"}
    await live.serving.unload("adder", 2)
    await live.upkeep.once()
    assert "adder.2" in live.server.loaded, "requests that Envoy holds still reach it"
    await rounds_until_drained(live)
    assert set(live.server.loaded) == {"adder.1"}


async def test_the_old_version_stays_loaded_for_an_undo(live: Plant) -> None:
    await live.deploy("adder", models.add(2))
    await live.routing.promote("adder", 2)
    await rounds_until_drained(live)
    assert set(live.server.loaded) == {"adder.1", "adder.2"}
    await live.serving.unload("adder", 1)
    await rounds_until_drained(live)
    assert set(live.server.loaded) == {"adder.2"}
    routes = live.data_plane.routes("adder")
    assert routes is not None
    assert [v.version for v in routes.versions] == [2]


async def test_a_version_that_callers_use_is_not_unloaded(live: Plant) -> None:
    await live.serving.unload("adder", 1)
    await rounds_until_drained(live)
    assert set(live.server.loaded) == {"adder.1"}


async def test_nothing_is_unloaded_while_the_routes_cannot_be_published(live: Plant) -> None:
    await live.deploy("adder", models.add(2))
    await live.routing.promote("adder", 2)
    await live.serving.unload("adder", 1)
    live.data_plane.refusal = "no Envoy answers"
    await rounds_until_drained(live)
    assert "adder.1" in live.server.loaded
    live.data_plane.refusal = ""
    await rounds_until_drained(live)
    assert "adder.1" not in live.server.loaded


async def test_a_refused_load_says_why_and_is_recorded(live: Plant) -> None:
    await live.deploy("adder", models.add(2))
    await live.serving.unload("adder", 2)
    await rounds_until_drained(live)
    live.server.refused["adder.2"] = "out of memory"
    with pytest.raises(LoadRefused, match="adder version 2 cannot be served: out of memory"):
        await live.serving.load("adder", 2)
    assert live.registry.version("adder", 2).state is VersionState.FAILED


async def test_unknown_versions_are_not_ready(live: Plant) -> None:
    assert not await live.serving.ready("adder", 9)
    assert not await live.serving.ready("stranger", 1)


async def test_readiness_is_asked_anew_once_it_is_stale(live: Plant) -> None:
    assert await live.serving.ready("adder", 1)
    live.server.running = False
    assert await live.serving.ready("adder", 1)
    live.clock.seconds += FRESH_S
    assert not await live.serving.ready("adder", 1)


async def test_a_version_whose_inference_fails_is_published_as_failing_at_once(live: Plant) -> None:
    live.server.broken.add("adder.1")
    await live.upkeep.once()
    routes = live.data_plane.routes("adder")
    assert routes
    assert [version.failing for version in routes.versions] == [True]
    assert not live.health.version_ready("adder", "1")
    (listed,) = live.health.versions()
    assert (listed.state, "test inference failed" in listed.reason) == ("UNAVAILABLE", True)

    live.server.broken.clear()
    await live.upkeep.once()
    routes = live.data_plane.routes("adder")
    assert routes
    assert [version.failing for version in routes.versions] == [False]
    assert live.health.version_ready("adder")


async def test_a_server_that_does_not_answer_says_nothing_of_its_versions(live: Plant) -> None:
    published = len(live.data_plane.states)
    live.server.running = False
    await live.upkeep.once()
    assert live.serving.failing() == frozenset()
    assert len(live.data_plane.states) == published, "with many models, that would be all of the configuration"


async def test_ready_is_no_for_what_no_caller_reaches(live: Plant) -> None:
    for name, version in (("adder", "2"), ("adder", "one"), ("adder", "-1"), ("stranger", ""), ("stranger", "1")):
        assert not live.health.version_ready(name, version)
