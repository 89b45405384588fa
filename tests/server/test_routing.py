"""The routing port: what Envoy is told, in which order, and what is taken back when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.envoy.ads import Rejected
from gateway.registry import VersionState
from gateway.routing import RoutingRefused
from tests import models
from tests.server.plant import Plant


@pytest.fixture
async def staged(plant: Plant) -> Plant:
    """Version 1 is stable, version 2 is staged."""
    await plant.deploy("adder", models.add(1))
    await plant.deploy("adder", models.add(2))
    await plant.routing.stage("adder", 2)
    return plant


def roles(plant: Plant) -> tuple[int, int | None, list[int]]:
    routes = plant.data_plane.routes("adder")
    assert routes is not None
    return routes.stable, routes.canary, [v.version for v in routes.versions]


async def test_a_staged_candidate_can_be_pinned_and_has_no_weight(staged: Plant) -> None:
    assert roles(staged) == (1, 2, [1, 2])
    assert staged.routing.weights() == {}


async def test_a_version_that_is_not_ready_is_not_staged(staged: Plant) -> None:
    await staged.routing.withdraw("adder", 2)
    staged.registry.set_state("adder", 2, VersionState.FAILED, "out of memory")
    with pytest.raises(RoutingRefused, match=r"version 2 cannot be staged: it is failed \(out of memory\)"):
        await staged.routing.stage("adder", 2)


async def test_the_lease_carries_staged_models_only(staged: Plant) -> None:
    await staged.routing.lease({"adder": 1000, "stranger": 500})
    assert staged.data_plane.leases[-1] == {"adder": 1000}


@pytest.mark.parametrize("weight", [-1, 10_001])
async def test_an_impossible_weight_is_refused(staged: Plant, weight: int) -> None:
    with pytest.raises(RoutingRefused, match="0 to 10000 basis points"):
        await staged.routing.lease({"adder": weight})


async def test_a_mirrored_share_is_leased_up_to_the_ceiling_and_ends_with_the_candidate(staged: Plant) -> None:
    await staged.routing.lease({}, {"adder": 10_000, "stranger": 10})
    assert staged.data_plane.mirrors[-1] == {"adder": staged.MIRROR_CEILING_BP}
    await staged.routing.withdraw("adder", 2)
    assert staged.data_plane.mirrors[-1] == {}


@pytest.mark.parametrize("share", [-1, 10_001])
async def test_an_impossible_mirrored_share_is_refused(staged: Plant, share: int) -> None:
    with pytest.raises(RoutingRefused, match="mirrored share of adder: expected 0 to 10000 basis points"):
        await staged.routing.lease({}, {"adder": share})


async def test_promotion_moves_the_routes_before_it_drops_the_weight(staged: Plant) -> None:
    await staged.routing.lease({"adder": 10_000})
    staged.data_plane.log.clear()
    await staged.routing.promote("adder", 2)
    assert staged.data_plane.log == ["publish", "lease"]
    assert staged.data_plane.leases[-1] == {}
    assert roles(staged) == (2, None, [1, 2])


async def test_withdrawal_drops_the_weight_before_it_moves_the_routes(staged: Plant) -> None:
    await staged.routing.lease({"adder": 3_000})
    staged.data_plane.log.clear()
    await staged.routing.withdraw("adder", 2)
    assert staged.data_plane.log == ["lease", "publish"]
    assert roles(staged) == (1, None, [1])


async def test_an_undo_goes_back_and_takes_the_candidate_out(staged: Plant) -> None:
    await staged.routing.promote("adder", 2)
    await staged.routing.promote("adder", 1)
    await staged.routing.withdraw("adder", 2)
    assert roles(staged) == (1, None, [1])


async def test_every_call_may_be_repeated(staged: Plant) -> None:
    await staged.routing.stage("adder", 2)
    await staged.routing.promote("adder", 2)
    await staged.routing.promote("adder", 2)
    assert roles(staged) == (2, None, [1, 2])
    await staged.routing.withdraw("adder", 1)
    await staged.routing.withdraw("adder", 1)
    assert roles(staged) == (2, None, [2])


async def test_what_envoy_refuses_is_taken_back(staged: Plant) -> None:
    before = staged.registry.model("adder")
    staged.data_plane.refusal = "refused"
    with pytest.raises(Rejected):
        await staged.routing.promote("adder", 2)
    assert staged.registry.model("adder") == before
    staged.data_plane.refusal = ""
    await staged.routing.promote("adder", 2)
    assert roles(staged) == (2, None, [1, 2])


async def test_nothing_is_published_when_nothing_changed(staged: Plant) -> None:
    published = len(staged.data_plane.states)
    await staged.routing.publish()
    assert len(staged.data_plane.states) == published


async def test_a_restarted_control_plane_publishes_the_same_state(staged: Plant, tmp_path: Path) -> None:
    again = Plant(tmp_path, server=staged.server)
    await again.routing.publish()
    assert again.data_plane.states[-1] == staged.data_plane.states[-1]
    again.close()


async def test_a_candidate_gets_numbers_after_those_that_were_locked_meanwhile(plant: Plant) -> None:
    await plant.deploy("classes", models.classifier(seed=1))
    await plant.deploy("classes", models.classifier(seed=2))
    await plant.routing.stage("classes", 2)
    served = plant.registry.version("classes", 2).contract
    locked = plant.registry.locked_contract("classes")
    assert locked is not None
    assert [(f.name, f.number) for f in served.outputs] == [(f.name, f.number) for f in locked.outputs]
