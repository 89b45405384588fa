"""The operators' API: models, rollouts, health, metrics, and one shape for every error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from gateway.registry import VersionState
from tests import models
from tests.server.plant import ARTEFACT_LIMIT, Plant

V1, V2, V3 = models.add(1), models.add(2), models.add(3)


@pytest.fixture
async def api(plant: Plant) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(plant.operators)
    async with httpx.AsyncClient(transport=transport, base_url="http://operators", timeout=30.0) as client:
        controller = asyncio.create_task(plant.controller.run())
        yield client
        controller.cancel()
        await asyncio.gather(controller, return_exceptions=True)


async def deploy(api: httpx.AsyncClient, model: str, body: bytes, **query: str | int) -> list[dict[str, Any]]:
    answer = await api.post(f"/api/v1/models/{model}/versions", content=body, params=query)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def watched(api: httpx.AsyncClient, rollout: int) -> list[dict[str, Any]]:
    """Every status of a rollout until it is decided."""
    answer = await api.get(f"/api/v1/rollouts/{rollout}/watch")
    return [json.loads(line) for line in answer.text.splitlines()]


async def until(api: httpx.AsyncClient, model: str, state: str) -> dict[str, Any]:
    """The model's rollout once it has come to a state; the test's own time limit bounds it."""
    while True:
        status: dict[str, Any] = (await api.get(f"/api/v1/models/{model}/rollout")).json()
        if status["state"] == state:
            return status
        await asyncio.sleep(0.01)


def check_error(answer: httpx.Response, http: int, code: int, reason: str) -> dict[str, Any]:
    """The error's metadata, after checking its shape."""
    assert answer.status_code == http, answer.text
    body = answer.json()
    assert body["code"] == code
    assert body["message"]
    detail = body["details"][0]
    assert (detail["@type"], detail["reason"], detail["domain"]) == (
        "type.googleapis.com/google.rpc.ErrorInfo",
        reason,
        "penstock",
    )
    metadata: dict[str, Any] = detail["metadata"]
    assert all(isinstance(value, str) for value in metadata.values())
    return metadata


async def test_a_deployment_tells_its_stages_line_by_line(api: httpx.AsyncClient) -> None:
    lines = await deploy(api, "adder", V1)
    assert [line["stage"] for line in lines] == ["registered", "loading", "ready", "live"]
    assert {line["version"] for line in lines} == {1}


async def test_models_are_listed_with_their_versions_and_roles(api: httpx.AsyncClient) -> None:
    await deploy(api, "adder", V1)
    await deploy(api, "adder", V2, rollout="none", version=5)
    (model,) = (await api.get("/api/v1/models")).json()["models"]
    assert model == (await api.get("/api/v1/models/adder")).json()
    assert model["grpc"] == "penstock.models.adder.v1.Adder/Predict"
    assert model["http"] == "/v1/models/adder:predict"
    assert [(v["number"], v["role"], v["state"], v["ready"]) for v in model["versions"]] == [
        (1, "stable", "ready", True),
        (5, None, "ready", True),
    ]


async def test_a_later_version_starts_a_rollout_that_an_operator_can_promote(api: httpx.AsyncClient) -> None:
    await deploy(api, "adder", V1)
    lines = await deploy(api, "adder", V2, by="ada")
    assert lines[-1]["stage"] == "rollout"
    await until(api, "adder", "step")
    promoted = await api.post("/api/v1/models/adder/rollout/promote", json={"by": "ada", "reason": "seen enough"})
    assert promoted.status_code == 200
    statuses = await watched(api, lines[-1]["rollout"])
    assert statuses[-1]["state"] == "promoted"
    assert statuses[-1]["final"] is True
    assert (await api.get("/api/v1/models/adder")).json()["stable"] == 2
    explained = (await api.get(f"/api/v1/rollouts/{lines[-1]['rollout']}/explanation")).json()
    assert "ada" in "\n".join(explained["lines"])
    assert "seen enough" in "\n".join(explained["lines"])


async def test_every_verb_in_turn(api: httpx.AsyncClient, plant: Plant) -> None:
    await deploy(api, "adder", V1)
    await deploy(api, "adder", V2)
    await until(api, "adder", "step")
    assert (await api.post("/api/v1/models/adder/rollout/pause")).json()["state"] == "paused"
    assert (await api.post("/api/v1/models/adder/rollout/resume")).json()["state"] == "step"
    await api.post("/api/v1/models/adder/rollout/abort")
    aborted = await until(api, "adder", "aborted")
    assert aborted["weight_bp"] == 0
    retried = (await api.post("/api/v1/models/adder/rollout/retry")).json()
    assert retried["rollout_id"] != aborted["rollout_id"]
    await until(api, "adder", "step")
    await api.post("/api/v1/models/adder/rollout/promote")
    await until(api, "adder", "promoted")
    assert plant.registry.line("adder").stable == 2
    await api.post("/api/v1/models/adder/rollout/undo")
    await until(api, "adder", "rolled_back")
    assert plant.registry.line("adder").stable == 1
    history = (await api.get("/api/v1/models/adder/rollouts")).json()
    assert [status["state"] for status in history] == ["rolled_back", "aborted"]


async def test_a_rollout_can_be_started_with_a_spec_as_object_or_yaml(api: httpx.AsyncClient) -> None:
    await deploy(api, "adder", V1)
    for body, spec in ((V2, {"steps": [5, 100]}), (V3, "steps: [5, 100]\n")):
        version = (await deploy(api, "adder", body, rollout="none"))[-1]["version"]
        answer = await api.post("/api/v1/models/adder/rollouts", json={"candidate": version, "spec": spec})
        assert answer.status_code == 201, answer.text
        assert answer.json()["step_weights_bp"][0] == 500
        await api.post("/api/v1/models/adder/rollout/abort")
        await until(api, "adder", "aborted")


async def test_a_deployment_takes_a_spec(api: httpx.AsyncClient) -> None:
    await deploy(api, "adder", V1)
    await deploy(api, "adder", V2, spec="steps: [1, 100]")
    assert (await until(api, "adder", "step"))["granted_bp"] == 100


class TestRefusals:
    """A wrong request changes nothing and says what was wrong."""

    async def test_broken_file(self, api: httpx.AsyncClient, plant: Plant) -> None:
        answer = await api.post("/api/v1/models/adder/versions", content=b"no model", params={"source": "adder.onnx"})
        check_error(answer, 400, 3, "BAD_ARTEFACT")
        assert "adder.onnx" in answer.json()["message"]
        assert plant.registry.models() == ()

    async def test_empty_body(self, api: httpx.AsyncClient) -> None:
        check_error(await api.post("/api/v1/models/adder/versions"), 400, 3, "EMPTY_BODY")

    async def test_too_large(self, api: httpx.AsyncClient) -> None:
        answer = await api.post("/api/v1/models/adder/versions", content=bytes(ARTEFACT_LIMIT + 1))
        assert check_error(answer, 413, 8, "TOO_LARGE")["expected"] == f"at most {ARTEFACT_LIMIT} bytes"

    async def test_bad_name(self, api: httpx.AsyncClient) -> None:
        check_error(await api.post("/api/v1/models/Adder/versions", content=V1), 400, 3, "BAD_MODEL_NAME")

    @pytest.mark.parametrize("version", ["0", "-3"])
    async def test_bad_version(self, api: httpx.AsyncClient, version: str) -> None:
        answer = await api.post("/api/v1/models/adder/versions", content=V1, params={"version": version})
        check_error(answer, 400, 3, "BAD_VERSION")

    async def test_version_that_is_no_number(self, api: httpx.AsyncClient) -> None:
        answer = await api.post("/api/v1/models/adder/versions", content=V1, params={"version": "two"})
        metadata = check_error(answer, 400, 3, "INVALID_ARGUMENT")
        assert metadata["field"] == "version"
        assert "integer" in metadata["expected"]
        assert metadata["received"] == "'two'"

    async def test_duplicate_version(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "adder", V1)
        answer = await api.post("/api/v1/models/adder/versions", content=V2, params={"version": 1})
        check_error(answer, 409, 6, "VERSION_EXISTS")

    async def test_name_clash(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "fraud-score", V1)
        check_error(await api.post("/api/v1/models/fraud_score/versions", content=V1), 409, 6, "NAME_CLASH")

    async def test_breaking_change(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "adder", V1)
        answer = await api.post("/api/v1/models/adder/versions", content=models.add(1, shape=(5,)))
        check_error(answer, 409, 9, "BREAKING_CHANGE")
        assert [d["metadata"]["field"] for d in answer.json()["details"]] == ["inputs.x", "outputs.y"]

    async def test_bad_spec(self, api: httpx.AsyncClient, plant: Plant) -> None:
        answer = await api.post("/api/v1/models/adder/versions", content=V1, params={"spec": "stepps: [10]"})
        metadata = check_error(answer, 400, 3, "BAD_SPEC")
        assert (metadata["field"], metadata["line"]) == ("stepps", "1")
        assert plant.registry.models() == ()

    async def test_unknown_model(self, api: httpx.AsyncClient) -> None:
        for path in ("models/adder", "models/adder/rollout", "models/adder/rollouts"):
            check_error(await api.get(f"/api/v1/{path}"), 404, 5, "UNKNOWN_MODEL")

    async def test_unknown_version(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "adder", V1)
        answer = await api.post("/api/v1/models/adder/rollouts", json={"candidate": 9})
        check_error(answer, 404, 5, "UNKNOWN_VERSION")

    async def test_the_stable_version_is_no_candidate(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "adder", V1)
        answer = await api.post("/api/v1/models/adder/rollouts", json={"candidate": 1})
        check_error(answer, 400, 9, "NOTHING_TO_ROLL_OUT")

    async def test_no_stable_version(self, api: httpx.AsyncClient, plant: Plant) -> None:
        plant.server.refused["adder.1"] = "out of memory"
        lines = await deploy(api, "adder", V1)
        assert lines[-1]["stage"] == "failed"
        answer = await api.post("/api/v1/models/adder/rollouts", json={"candidate": 1})
        check_error(answer, 400, 9, "NO_STABLE_VERSION")

    async def test_no_rollout(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "adder", V1)
        check_error(await api.get("/api/v1/models/adder/rollout"), 404, 5, "NO_ROLLOUT")
        check_error(await api.get("/api/v1/rollouts/77"), 404, 5, "NO_ROLLOUT")
        check_error(await api.get("/api/v1/rollouts/77/watch"), 404, 5, "NO_ROLLOUT")

    async def test_a_verb_out_of_place(self, api: httpx.AsyncClient) -> None:
        await deploy(api, "adder", V1)
        await deploy(api, "adder", V2)
        await until(api, "adder", "step")
        answer = await api.post("/api/v1/models/adder/rollout/undo")
        check_error(answer, 400, 9, "ILLEGAL_VERB")
        assert "abort takes the candidate back" in answer.json()["message"]

    async def test_a_verb_that_does_not_exist(self, api: httpx.AsyncClient) -> None:
        metadata = check_error(await api.post("/api/v1/models/adder/rollout/hurry"), 400, 3, "INVALID_ARGUMENT")
        assert metadata["field"] == "verb"

    async def test_an_unknown_field(self, api: httpx.AsyncClient) -> None:
        answer = await api.post("/api/v1/models/adder/rollouts", json={"candidate": 2, "weight": 30})
        assert check_error(answer, 400, 3, "INVALID_ARGUMENT")["field"] == "weight"

    async def test_text_that_is_not_json(self, api: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/json"}
        answer = await api.post("/api/v1/models/adder/rollouts", content=b"{", headers=headers)
        assert check_error(answer, 400, 3, "INVALID_ARGUMENT")["expected"] == "JSON"

    async def test_unknown_path_and_method(self, api: httpx.AsyncClient) -> None:
        check_error(await api.get("/api/v1/nothing"), 404, 5, "NOT_FOUND")
        answer = await api.delete("/api/v1/models")
        check_error(answer, 405, 12, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "GET"


async def test_readiness_names_what_is_missing(api: httpx.AsyncClient, plant: Plant) -> None:
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert "no models yet" in answer.json()["message"]
    await deploy(api, "adder", V1)
    plant.envoy_live, plant.server.running = False, False
    plant.clock.seconds += 10
    await plant.upkeep.once()
    answer = await api.get("/readyz")
    assert answer.status_code == 503
    assert [line.split(":")[0] for line in answer.json()["missing"]] == [
        "Envoy does not answer",
        "the inference server 'local' at 127.0.0.1",
        "adder version 1 does not answer",
    ]
    assert (await api.get("/healthz")).status_code == 200


async def test_a_restarted_control_plane_is_not_ready_before_its_models_answered(
    api: httpx.AsyncClient, plant: Plant, tmp_path: Any
) -> None:
    await deploy(api, "adder", V1)
    again = Plant(tmp_path, server=plant.server)
    assert (await again.health.report()).missing == ("adder version 1 is not loaded yet",)
    await again.upkeep.once()
    again.clock.seconds += 10
    assert (await again.health.report()).message == "ready; 1 model served"
    again.close()


async def test_metrics_follow_what_happens(api: httpx.AsyncClient, plant: Plant) -> None:
    await deploy(api, "adder", V1)
    await deploy(api, "adder", V2)
    await api.post("/api/v1/models/adder/versions", content=b"no model")
    await until(api, "adder", "step")
    during = (await api.get("/metrics")).text
    assert 'penstock_rollout_state{candidate="2",model="adder",state="step"} 1.0' in during
    assert 'penstock_version_ready{model="adder",version="1"} 1.0' in during
    await api.post("/api/v1/models/adder/rollout/abort")
    await until(api, "adder", "aborted")
    after = (await api.get("/metrics")).text
    assert 'penstock_rollout_verdicts_total{model="adder",outcome="aborted"} 1.0' in after
    for outcome in ("live", "rollout", "refused"):
        assert f'penstock_deployments_total{{outcome="{outcome}"}} 1.0' in after


async def test_the_compiled_configuration_is_yaml(api: httpx.AsyncClient) -> None:
    await deploy(api, "adder", V1)
    texts = {
        form: (await api.get("/api/v1/envoy", params={"form": form} if form else {})).text
        for form in ("", "compiled", "static", "bootstrap")
    }
    loaded = {form: json.dumps(yaml.safe_load(text)) for form, text in texts.items()}
    assert loaded[""] == loaded["compiled"]
    assert {form for form, text in loaded.items() if "dynamic_resources" in text} == {"bootstrap"}
    assert {form for form, text in loaded.items() if "adder.1" in text} == {"", "compiled", "static"}
    clusters = yaml.safe_load(texts["static"])["static_resources"]["clusters"]
    assert not [cluster["name"] for cluster in clusters if cluster["name"].startswith("penstock-control")]


async def test_the_api_describes_itself_and_its_errors(api: httpx.AsyncClient) -> None:
    document = (await api.get("/api/v1/openapi.json")).json()
    operations = [(m, p, o) for p, item in document["paths"].items() for m, o in item.items()]
    assert len(operations) == 21
    for _, _, operation in operations:
        assert "422" not in operation["responses"], "no answer of this API has that shape"
        assert operation["responses"]["default"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/ErrorStatus"
        }
    error = (await api.get("/api/v1/models/nothing")).json()
    schema = {**document["components"]["schemas"]["ErrorStatus"], "components": document["components"]}
    jsonschema.validate(error, schema)


async def test_a_version_is_loading_until_it_is_proven(api: httpx.AsyncClient, plant: Plant) -> None:
    await deploy(api, "adder", V1)
    assert plant.registry.version("adder", 1).state is VersionState.READY
