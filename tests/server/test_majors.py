"""API majors: a breaking version is stopped, or published beside the old API, with rollouts of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.lines import BadLineName, Line
from gateway.contract.lock_file import lock_text
from gateway.contract.majors import BadApiMajor, BreakingChange, join
from gateway.deploy import ApiChoice, DeployEvent, DeployRequest, DeployStage, LockContradicted
from gateway.registry import Registry, UnknownLine
from gateway.registry_schema import NewerDatabase
from tests import models
from tests.server.plant import Plant, chunked

ONE, ONE_AGAIN = models.add(1), models.add(2)
TWO, TWO_AGAIN = models.add(1, Datatype.FP64), models.add(2, Datatype.FP64)


async def deploy(plant: Plant, artefact: bytes, api: ApiChoice | None = None) -> list[DeployEvent]:
    request = DeployRequest(model="adder", source="adder.onnx", api=api or ApiChoice())
    deployment = await plant.deployer.accept(request, chunked(artefact))
    return [event async for event in deployment.events()]


@pytest.fixture
async def two(plant: Plant) -> Plant:
    """`adder` with major 1 (FP32, version 1) and major 2 (FP64, version 2)."""
    await deploy(plant, ONE)
    await deploy(plant, TWO, ApiChoice(new_major=True))
    return plant


@pytest.fixture
async def api(plant: Plant) -> AsyncIterator[httpx.AsyncClient]:
    running = asyncio.create_task(plant.controller.run())
    transport = httpx.ASGITransport(app=plant.operators)
    async with httpx.AsyncClient(transport=transport, base_url="http://operators") as client:
        yield client
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def test_a_line_is_named_by_its_model_and_major() -> None:
    assert [Line("digits").name, Line("digits", 2).name] == ["digits", "digits@2"]
    assert [Line("digits-a").key, Line("digits-a", 2).key] == ["digits_a", "digits_a.v2"]
    assert Line.parse("digits") == Line.parse("digits@1") == Line("digits")
    for wrong in ("digits@", "digits@0", "digits@x", "digits@1@2", "digits@-1"):
        with pytest.raises(BadLineName):
            Line.parse(wrong)


async def test_a_breaking_version_is_stopped_with_the_list_and_what_to_do(plant: Plant) -> None:
    await deploy(plant, ONE)
    with pytest.raises(BreakingChange, match=r"inputs\.x: datatype was FP32, is FP64") as refused:
        await deploy(plant, TWO)
    assert "--new-api-major" in str(refused.value)
    assert [v.number for v in plant.registry.versions("adder")] == [1]


async def test_a_breaking_version_opens_the_next_major_beside_the_old_one(two: Plant) -> None:
    old, new = two.data_plane.states[-1].models
    assert (old.key, old.major, old.stable) == ("adder", 1, 1)
    assert (new.key, new.major, new.stable) == ("adder.v2", 2, 2)
    assert new.served(2).contract.full_service == "penstock.models.adder.v2.Adder"
    assert new.served(2).contract.predict_http_path == "/v2/models/adder:predict"
    assert [c.major for c in two.registry.contracts()] == [1, 2]


async def test_the_deployment_says_that_and_why_it_opens_a_major(plant: Plant) -> None:
    await deploy(plant, ONE)
    events = await deploy(plant, TWO, ApiChoice(new_major=True))
    (note,) = [event.message for event in events if event.stage is DeployStage.NOTED]
    assert note.startswith("opens API major 2 of adder, beside 1, because inputs.x: datatype was FP32, is FP64")
    assert events[-1].message == "adder version 2 answers all callers of API major 2"


async def test_a_later_version_joins_the_newest_major_that_it_does_not_break(two: Plant) -> None:
    await deploy(two, TWO_AGAIN)
    assert two.registry.version("adder", 3).line == Line("adder", 2)
    events = await deploy(two, ONE_AGAIN)
    assert two.registry.version("adder", 4).line == Line("adder", 1)
    (note,) = [event.message for event in events if event.stage is DeployStage.NOTED]
    assert "joins API major 1" in note
    assert "inputs.x: datatype was FP64, is FP32" in note


async def test_a_version_that_breaks_nothing_needs_no_new_major(plant: Plant) -> None:
    await deploy(plant, ONE)
    events = await deploy(plant, ONE_AGAIN, ApiChoice(new_major=True))
    assert plant.registry.version("adder", 2).line == Line("adder")
    assert any("needs no new API major" in event.message for event in events)


async def test_the_major_can_be_said(two: Plant) -> None:
    with pytest.raises(BreakingChange, match="datatype was FP64, is FP32"):
        await deploy(two, ONE_AGAIN, ApiChoice(major=2))
    with pytest.raises(BadApiMajor, match="adder has API major 1, 2, and the next new one is 3"):
        await deploy(two, ONE_AGAIN, ApiChoice(major=5))
    await deploy(two, ONE_AGAIN, ApiChoice(major=3))
    assert two.registry.version("adder", 3).line == Line("adder", 3)


async def test_each_line_has_rollouts_of_its_own(two: Plant, api: httpx.AsyncClient) -> None:
    for artefact in (ONE_AGAIN, TWO_AGAIN):
        await deploy(two, artefact)
    for candidate in (3, 4):
        # Named by the model alone: the version tells the line.
        started = await api.post("/api/v1/models/adder/rollouts", json={"candidate": candidate})
        assert started.status_code == 201, started.text
    assert {r["model"]: (r["stable"], r["candidate"]) for r in (await api.get("/api/v1/rollouts")).json()} == {
        "adder": (1, 3),
        "adder@2": (2, 4),
    }
    async with asyncio.timeout(20):
        while (await api.get("/api/v1/models/adder@2/rollout")).json()["state"] != "step":
            await asyncio.sleep(0.02)
    await api.post("/api/v1/models/adder@2/rollout/promote")
    async with asyncio.timeout(20):
        while two.registry.line("adder@2").stable != 4:
            await asyncio.sleep(0.02)
    assert two.registry.line("adder").stable == 1, "the other line's callers stay where they are"
    assert (await api.get("/api/v1/models/adder@1/rollout")).json()["model"] == "adder"


async def test_a_version_is_not_rolled_out_to_the_callers_of_another_major(two: Plant, api: httpx.AsyncClient) -> None:
    refused = await api.post("/api/v1/models/adder@1/rollouts", json={"candidate": 2})
    assert refused.status_code == 400
    assert "its line is adder@2" in refused.json()["message"]
    unknown = await api.get("/api/v1/models/adder@7/rollout")
    assert unknown.status_code == 404
    assert unknown.json()["message"] == "model 'adder' has no API major 7; it has 1, 2"


async def test_the_model_list_shows_every_line(two: Plant, api: httpx.AsyncClient) -> None:
    model = (await api.get("/api/v1/models/adder")).json()
    assert [(line["name"], line["stable"], line["http"]) for line in model["lines"]] == [
        ("adder", 1, "/v1/models/adder:predict"),
        ("adder@2", 2, "/v2/models/adder:predict"),
    ]
    assert [(v["number"], v["major"], v["role"]) for v in model["versions"]] == [(1, 1, "stable"), (2, 2, "stable")]


async def test_every_major_has_its_documents(two: Plant) -> None:
    transport = httpx.ASGITransport(app=two.public)
    async with httpx.AsyncClient(transport=transport, base_url="http://callers") as callers:
        listed = (await callers.get("/v1/models")).json()["models"]
        assert [(m["major"], m["docs"]) for m in listed] == [(1, "/docs/adder"), (2, "/v2/models/adder/docs")]
        for model in listed:
            for link in ("proto", "openapi", "docs"):
                assert (await callers.get(model[link])).status_code == 200, model[link]
        assert "package penstock.models.adder.v2;" in (await callers.get("/v2/models/adder.proto")).text
        assert (await callers.get("/v3/models/adder.proto")).status_code == 404
    await two.desk.close()


async def test_everything_is_there_after_a_restart(two: Plant, tmp_path: Path) -> None:
    again = Plant(tmp_path)
    assert again.registry.lines() == two.registry.lines()
    assert again.registry.models() == two.registry.models()
    again.close()


async def test_a_lock_gives_a_first_version_the_numbers_that_callers_have(plant: Plant) -> None:
    x, older = TensorSpec("x", Datatype.FP32, (4,)), TensorSpec("older", Datatype.FP32, (1,))
    outputs = (TensorSpec("y", Datatype.FP32, (4,)),)
    with_older = derive("adder", Signature((older, x), outputs, 64))
    # Elsewhere `older` was there first, so that x is field 2 for the callers.
    elsewhere = derive("adder", Signature((x,), outputs, 64), with_older)
    with pytest.raises(BreakingChange, match=r"inputs\.older: is gone"):
        await deploy(plant, ONE, ApiChoice(locks=(with_older,)))
    await deploy(plant, ONE, ApiChoice(locks=(elsewhere,)))
    assert [(f.name, f.number) for f in plant.registry.version("adder", 1).contract.inputs] == [("x", 2)]
    with pytest.raises(LockContradicted, match=r"`float x = 1`, is `float x = 2`"):
        await deploy(plant, ONE_AGAIN, ApiChoice(locks=(derive("adder", Signature((x,), outputs, 64)),)))


def test_joining_is_a_function_of_signature_and_locks() -> None:
    narrow = Signature((TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 8)
    wide = Signature((TensorSpec("x", Datatype.FP64, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 8)
    lock = derive("adder", narrow)
    assert join("adder", narrow, ()).contract.major == 1
    assert join("adder", narrow, (), new_major=True).contract.major == 1
    opened = join("adder", wide, (lock,), new_major=True)
    assert opened.contract.major == 2
    assert join("adder", narrow, (lock, opened.contract)).contract == lock


# A data directory of the first release


_FIRST_RELEASE = """
CREATE TABLE models (
    name TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, created_at REAL NOT NULL,
    stable INTEGER, candidate INTEGER, previous INTEGER, stable_since REAL
) STRICT;
CREATE TABLE versions (
    model TEXT NOT NULL REFERENCES models(name), number INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    signature TEXT NOT NULL, contract TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    created_at REAL NOT NULL, PRIMARY KEY (model, number), UNIQUE (model, digest)
) STRICT;
CREATE TABLE contracts (
    model TEXT NOT NULL REFERENCES models(name), major INTEGER NOT NULL, contract TEXT NOT NULL,
    locked_at REAL NOT NULL, PRIMARY KEY (model, major)
) STRICT;
"""


def first_release(path: Path) -> None:
    signature = Signature((TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 8)
    described, contract = json.dumps(signature.to_json()), json.dumps(derive("digits", signature).to_json())
    connection = sqlite3.connect(path)
    connection.executescript(_FIRST_RELEASE)
    connection.execute("INSERT INTO models VALUES ('digits', 'digits', 1.0, 2, 3, 1, 5.0)")
    for number in (1, 2, 3):
        row = ("digits", number, f"sha256:{number}", 10, described, contract, "ready", "", 1.0)
        connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO contracts VALUES ('digits', 1, ?, 2.0)", (contract,))
    connection.commit()
    connection.close()


def test_a_data_directory_of_the_first_release_opens(tmp_path: Path) -> None:
    first_release(tmp_path / "penstock.db")
    for _ in range(2):  # the second time it is in today's form already
        plant = Plant(tmp_path)
        line = plant.registry.line("digits")
        assert (line.stable, line.candidate, line.previous, line.stable_since) == (2, 3, 1, 5.0)
        assert [v.number for v in plant.registry.versions("digits")] == [1, 2, 3]
        assert plant.registry.version("digits", 1).served is None
        assert plant.registry.locked_contract("digits") == plant.registry.version("digits", 2).contract
        plant.registry.set_stable("digits", 3)
        plant.registry.set_stable("digits", 2)
        plant.registry.set_candidate(Line("digits"), 3)
        plant.registry.restore(line)
        plant.close()


def test_a_data_directory_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "penstock.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NewerDatabase, match="written by a later version"):
        Plant(tmp_path)


def test_the_line_of_an_unknown_major_is_not_found(plant: Plant) -> None:
    registry: Registry = plant.registry
    signature = Signature((TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 8)
    registry.register(
        model="digits",
        number=None,
        digest="sha256:1",
        size=1,
        signature=signature,
        contract=derive("digits", signature),
    )
    with pytest.raises(UnknownLine, match="no API major 2"):
        registry.line("digits@2")


def test_a_lock_file_of_both_majors_has_both(plant: Plant) -> None:
    signature = Signature((TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 8)
    text = lock_text([derive("digits", signature), derive("digits", signature, major=2)])
    assert "v1:" in text
    assert "v2:" in text
