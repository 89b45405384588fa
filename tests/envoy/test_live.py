"""The published configuration in a real Envoy: who answers whom, while it changes under load."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.envoy.ads import AdsServer, NotConnected, Rejected
from gateway.envoy.snapshot import Resource, Snapshot, TypeUrl
from gateway.envoy.yaml_config import static_yaml
from tests.envoy.live import inference_stub, running_envoy, running_plane, until
from tests.envoy.states import model, settings, state
from tests.triton_server import free_ports

USERS = [f"user-{number}" for number in range(300)]


async def test_a_prediction_says_who_answered_it(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        response = await plane.predict("digits")
        assert response.status_code == 200
        assert response.headers["x-penstock-model"] == "digits"
        assert response.headers["x-penstock-version"] == "1"
        assert response.headers["x-request-id"]
        assert response.headers["server"] == "penstock"
        assert not [name for name in response.headers if name.startswith("x-envoy") or name == "x-penstock-local"]
        assert plane.inference.asked == {"digits.1": 1}


async def test_a_caller_keeps_its_own_request_id(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        body = {"instances": [{"x": [1.5]}]}
        response = await plane.client.post("/v1/models/digits:predict", json=body, headers={"x-request-id": "mine"})
        assert response.headers["x-request-id"] == "mine"


async def test_models_and_versions_come_and_go_under_load_without_a_failure(tmp_path: Path) -> None:
    digits = model("digits", 1, stable=1)
    async with running_plane(tmp_path, digits) as plane:
        async with plane.load("digits") as responses:
            for number in range(5):
                await plane.publish(digits, model(f"other-{number}", 1, stable=1))
                assert await plane.version_of(f"other-{number}") == 1
            await plane.publish(model("digits", 1, 2, stable=1, canary=2))
            for weight in (500, 1000, 3000, 5000, 10_000) * 2:
                await plane.ads.lease({"digits": weight})
            await plane.publish(model("digits", 1, 2, stable=2))
            await plane.publish(model("digits", 1, 2, stable=1))
        assert {response.status_code for response in responses} == {200}
        assert (await plane.predict("other-0")).status_code == 404, "a model that was withdrawn is unknown"


async def test_users_stay_in_the_canary_as_its_weight_rises(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, 2, stable=1, canary=2)) as plane:
        inside: set[str] = set()
        for weight in (500, 1000, 3000, 5000, 10_000):
            await plane.ads.lease({"digits": weight})
            arms = await plane.arms("digits", USERS)
            now = {user for user, version in arms.items() if version == 2}
            assert inside <= now, "nobody who was in the canary leaves it while the weight rises"
            assert abs(len(now) / len(USERS) - weight / 10_000) < 0.08
            inside = now
        assert inside == set(USERS)


async def test_gives_the_same_user_different_luck_in_different_models(tmp_path: Path) -> None:
    canaries = [model(name, 1, 2, stable=1, canary=2) for name in ("digits", "iris")]
    async with running_plane(tmp_path, *canaries) as plane:
        await plane.ads.lease({"digits": 5000, "iris": 5000})
        digits, iris = await plane.arms("digits", USERS), await plane.arms("iris", USERS)
        both = sum(digits[user] == iris[user] for user in USERS)
        assert len(USERS) * 0.3 < both < len(USERS) * 0.7


async def test_a_lease_that_nobody_renews_lapses_inside_envoy(tmp_path: Path) -> None:
    staged = model("digits", 1, 2, stable=1, canary=2)
    async with running_plane(tmp_path, staged, ttl_s=1.0) as plane:
        await plane.ads.lease({"digits": 10_000})
        assert await plane.version_of("digits") == 2

        async def stable_again() -> bool:
            return await plane.version_of("digits") == 1

        async with plane.load("digits") as responses:
            await until(stable_again)
        assert {response.status_code for response in responses} == {200}
        await plane.ads.lease({"digits": 10_000})
        assert await plane.version_of("digits") == 2, "a lapsed lease can be renewed"


async def test_a_lease_lapses_when_the_control_plane_is_gone(tmp_path: Path) -> None:
    staged = model("digits", 1, 2, stable=1, canary=2)
    async with running_plane(tmp_path, staged, ttl_s=1.0) as plane:
        await plane.ads.lease({"digits": 10_000})
        await plane.control.stop()

        async def stable_again() -> bool:
            return await plane.version_of("digits") == 1

        async with plane.load("digits") as responses:
            await until(stable_again)
        assert {response.status_code for response in responses} == {200}
        with pytest.raises(NotConnected):
            await plane.ads.lease({"digits": 10_000})
        await plane.control.start()
        await plane.ads.wait_settled(timeout_s=30)


async def test_promotion_moves_nobody_back(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, 2, stable=1, canary=2)) as plane:
        await plane.ads.lease({"digits": 10_000})
        async with plane.load("digits") as responses:
            await plane.publish(model("digits", 1, 2, stable=2))
            await plane.ads.lease({})
        assert {r.headers["x-penstock-version"] for r in responses} == {"2"}


async def test_the_next_candidate_does_not_inherit_a_weight(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, 2, stable=1, canary=2)) as plane:
        await plane.ads.lease({"digits": 10_000})
        await plane.publish(model("digits", 1, 3, stable=1, canary=3))
        assert set((await plane.arms("digits", USERS[:50])).values()) == {1}


async def test_a_refused_model_leaves_the_others_alone(tmp_path: Path) -> None:
    digits = model("digits", 1, stable=1)
    async with running_plane(tmp_path, digits) as plane:
        wanted = plane.compile(model("digits", 1, 2, stable=2), model("iris", 1, stable=1), model("late", 1, stable=1))
        with pytest.raises(Rejected) as refusal:
            await plane.ads.publish(_spoilt(_spoilt(wanted, "digits"), "iris"))
        assert set(refusal.value.reasons) == {"ROUTES digits", "ROUTES iris"}
        assert "missing )" in refusal.value.reasons["ROUTES iris"]
        assert await plane.version_of("digits") == 1, "the last good routes stay"
        assert await plane.version_of("late") == 1, "the rest of the snapshot is in force"
        assert (await plane.predict("iris")).status_code == 404, "a new model that was refused is not there"
        await plane.ads.publish(wanted)
        assert await plane.version_of("digits") == 2
        assert await plane.version_of("iris") == 1


async def test_serving_goes_on_when_the_control_plane_is_replaced(tmp_path: Path) -> None:
    digits = model("digits", 1, stable=1)
    async with running_plane(tmp_path, digits) as plane:
        async with plane.load("digits") as responses:
            await plane.control.stop()
            plane.control.ads = AdsServer(lease_ttl_s=30.0)
            await plane.control.start()
            with pytest.raises(NotConnected):
                await plane.ads.lease({})
            assert plane.ads.snapshot is None
            plane.ads.load(plane.compile(digits, model("iris", 1, stable=1)))
            await plane.ads.wait_settled(timeout_s=30)
            assert await plane.version_of("iris") == 1
        assert {response.status_code for response in responses} == {200}


async def test_a_pin_chooses_the_version(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, 2, stable=1, canary=2)) as plane:
        for pin in (1, 2):
            assert await plane.version_of("digits", pin=str(pin)) == pin
            assert await plane.version_of("digits", path=f"/v1/models/digits/versions/{pin}:predict") == pin
        unknown = await plane.predict("digits", pin="3")
        assert unknown.status_code == 404
        assert (await plane.predict("digits", path="/v1/models/digits/versions/9:predict")).status_code == 404
        await plane.ads.lease({"digits": 10_000})
        assert await plane.version_of("digits", pin="1") == 1, "a weight does not move a pinned request"


async def test_only_listed_paths_reach_a_server(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
            assert (await plane.client.get(path)).status_code == 200, path
        index = await plane.client.post("/v2/repository/index", json={})
        assert index.json()["details"][0]["metadata"]["hop"] == "control plane", "which there is none of here"
        for path in (
            "/v2/repository/models/digits.1/unload",
            "/v2/models/digits/trace/setting",
            "/v2/models/unknown/ready",
            "/v2/logging",
            "/v2/systemsharedmemory/status",
            "/metrics",
        ):
            assert (await plane.client.post(path, json={})).status_code == 404, path
        for method in ("inference.GRPCInferenceService/RepositoryModelUnload", "envoy.service.discovery.v3.X/Y"):
            headers = {"content-type": "application/grpc", "te": "trailers"}
            answer = await plane.client.post(f"/{method}", content=b"\0\0\0\0\0", headers=headers)
            assert answer.headers["grpc-status"] != "0", method
        assert not [path for path in plane.inference.http_paths if "repository" in path or "trace" in path]


async def test_the_static_configuration_runs_by_itself(tmp_path: Path) -> None:
    listen, admin = free_ports(2)
    async with inference_stub() as stub, httpx.AsyncClient(base_url=f"http://127.0.0.1:{listen}") as client:
        staged = state(model("digits", 1, 2, stable=1, canary=2), server=stub.server)
        config = static_yaml(staged, settings(listen=listen, admin=admin), {"digits": 10_000})
        async with running_envoy(config, tmp_path, admin):
            answer = await client.post("/v1/models/digits:predict", json={"instances": [{"x": [1.5]}]})
            assert answer.json() == {"predictions": [{"y": [1.5]}]}
            assert answer.headers["x-penstock-version"] == "2"


def _spoilt(snapshot: Snapshot, routes: str) -> Snapshot:
    """The same with a route configuration that Envoy refuses: an impossible regular expression."""
    good = snapshot.resources[TypeUrl.ROUTES][routes].body
    host = good["virtual_hosts"][0]
    bad_route = {"match": {"safe_regex": {"regex": "("}}, "direct_response": {"status": 404}}
    body = {**good, "virtual_hosts": [{**host, "routes": [bad_route, *host["routes"]]}]}
    named = {**snapshot.resources[TypeUrl.ROUTES], routes: Resource.of(TypeUrl.ROUTES, body)}
    return Snapshot({**snapshot.resources, TypeUrl.ROUTES: named}, snapshot.leases)
