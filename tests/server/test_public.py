"""What callers see of the control plane: docs, descriptions of the API, feedback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from rollout.evidence.feedback_store import Prediction
from tests import models
from tests.server.plant import Plant


@pytest.fixture
async def callers(plant: Plant) -> AsyncIterator[httpx.AsyncClient]:
    await plant.deploy("adder", models.add(1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(plant.public), base_url="http://gate:8080") as client:
        yield client
        await plant.desk.close()


async def test_models_are_listed_with_where_to_call_them(callers: httpx.AsyncClient) -> None:
    (model,) = (await callers.get("/v1/models")).json()["models"]
    assert model == {
        "name": "adder",
        "major": 1,
        "stable": 1,
        "candidate": None,
        "versions": [1],
        "predict": "/v1/models/adder:predict",
        "grpc": "penstock.models.adder.v1.Adder/Predict",
        "proto": "/v1/models/adder.proto",
        "infer": "/v2/models/adder/infer",
        "openapi": "/v1/models/adder/openapi.json",
        "docs": "/docs/adder",
    }
    assert (await callers.get("/v1/models/adder")).json() == model


async def test_every_link_of_the_list_leads_somewhere(callers: httpx.AsyncClient) -> None:
    model = (await callers.get("/v1/models/adder")).json()
    for link in ("proto", "openapi", "docs"):
        assert (await callers.get(model[link])).status_code == 200, link
    assert "service Adder {" in (await callers.get(model["proto"])).text
    assert "/v1/models/adder:predict" in (await callers.get(model["openapi"])).json()["paths"]


async def test_the_index_and_the_merged_document_know_every_model(callers: httpx.AsyncClient, plant: Plant) -> None:
    await plant.deploy("doubler", models.sums())
    assert "/docs/doubler" in (await callers.get("/docs")).text
    paths = (await callers.get("/openapi.json")).json()["paths"]
    assert {"/v1/models/adder:predict", "/v1/models/doubler:predict", "/v1/feedback"} <= set(paths)


async def test_the_root_leads_to_the_docs(callers: httpx.AsyncClient) -> None:
    answer = await callers.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_examples_use_the_address_that_the_caller_used(callers: httpx.AsyncClient) -> None:
    assert "http://gate:8080/v1/models/adder:predict" in (await callers.get("/docs/adder")).text


async def test_a_model_that_never_served_is_unknown_to_callers(callers: httpx.AsyncClient, plant: Plant) -> None:
    plant.server.refused["broken.1"] = "out of memory"
    await plant.deploy("broken", models.add(2))
    for path in ("/docs/broken", "/v1/models/broken", "/v1/models/broken.proto", "/v1/models/broken/openapi.json"):
        answer = await callers.get(path)
        assert answer.status_code == 404
        assert answer.json()["details"][0]["reason"] == "UNKNOWN_MODEL"
    assert [m["name"] for m in (await callers.get("/v1/models")).json()["models"]] == ["adder"]


async def test_feedback_is_attributed_to_the_version_that_answered(callers: httpx.AsyncClient, plant: Plant) -> None:
    plant.desk.log([Prediction("request-1", "adder", 1, (3,), plant.clock.now())])
    answer = await callers.post("/v1/feedback", json={"request_id": "request-1", "label": 3})
    assert answer.json() == {
        "request_id": "request-1",
        "state": "joined",
        "duplicate": False,
        "rows": 1,
        "model": "adder",
        "version": 1,
    }
    again = await callers.post("/v1/feedback", json={"request_id": "request-1", "label": 3})
    assert again.json()["duplicate"] is True


@pytest.mark.parametrize(
    ("body", "http", "reason", "field"),
    [
        (b"", 400, "BAD_FEEDBACK", ""),
        (b"{", 400, "BAD_FEEDBACK", ""),
        (b'{"request_id": "a"}', 400, "BAD_FEEDBACK", "label"),
        (b'{"request_id": "a", "label": 1, "reward": 1}', 400, "BAD_FEEDBACK", "label"),
        (b'{"request_id": "a", "reward": NaN}', 400, "BAD_FEEDBACK", ""),
        (b'{"request_id": "a", "reward": 1e999}', 400, "BAD_FEEDBACK", "reward"),
        (b'{"label": 1}', 400, "BAD_FEEDBACK", "request_id"),
        (b'{"request_id": "a", "label": 1, "row": -1}', 400, "BAD_FEEDBACK", "row"),
        (b'{"request_id": "request-1", "label": 1, "row": 7}', 400, "FEEDBACK_DOES_NOT_FIT", "label"),
        (b'{"request_id": "request-1", "label": 4}', 409, "FEEDBACK_EXISTS", "label"),
        (b'{"request_id": "a", "label": "' + bytes(1024 * 1024) + b'"}', 413, "TOO_LARGE", None),
    ],
)
async def test_wrong_feedback_is_refused_in_the_one_shape(
    callers: httpx.AsyncClient, plant: Plant, body: bytes, http: int, reason: str, field: str | None
) -> None:
    plant.desk.log([Prediction("request-1", "adder", 1, (3,), plant.clock.now())])
    await callers.post("/v1/feedback", json={"request_id": "request-1", "label": 3})
    answer = await callers.post("/v1/feedback", content=body)
    assert answer.status_code == http, answer.text
    detail = answer.json()["details"][0]
    assert detail["reason"] == reason
    assert detail["metadata"].get("field") == field
