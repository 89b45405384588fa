"""The command line against a live control plane on a free port."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from gateway.cli.app import app, global_options_first
from tests import models
from tests.server.plant import Plant

V1, V2 = models.add(1), models.add(2)


class Served:
    """A control plane with both its HTTP ports, in a thread and event loop of its own; no Envoy is in front of it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._started = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.operators = self.callers = ""

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._started.wait(20), "the servers did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self.plant = plant = Plant(self._data_dir)
        servers = [_server(plant.operators), _server(plant.public)]
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        controller = asyncio.create_task(plant.controller.run())
        running = [asyncio.create_task(server.serve()) for server in servers]
        while not all(server.started for server in servers):
            await asyncio.sleep(0.01)
        self.operators, self.callers = (f"http://127.0.0.1:{_port(server)}" for server in servers)
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        self._started.set()
        await stopping.wait()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)
        controller.cancel()
        await asyncio.gather(controller, return_exceptions=True)
        await plant.deployer.close()
        plant.close()


def _server(application: FastAPI) -> uvicorn.Server:
    config = uvicorn.Config(
        application, host="127.0.0.1", port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config)


def _port(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@dataclass
class Penstock:
    """The command, pointed at the live servers."""

    served: Served
    folder: Path

    def __call__(self, *args: str, exit_code: int = 0) -> Result:
        addresses = ["--server", self.served.operators, "--gateway", self.served.callers]
        result = CliRunner().invoke(app, [*args, *addresses])
        assert result.exit_code == exit_code, result.output
        return result

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json").stdout)

    def model(self, body: bytes) -> str:
        path = self.folder / "model.onnx"
        path.write_bytes(body)
        return str(path)

    def deploy_two(self) -> None:
        """Version 1 answers, version 2 is loaded."""
        self("deploy", self.model(V1), "--name", "adder")
        self("deploy", self.model(V2), "--name", "adder", "--no-rollout")


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Penstock]:
    (tmp_path / "data").mkdir()
    with Served(tmp_path / "data") as served:
        yield Penstock(served, tmp_path)


def test_deploy_shows_each_stage(penstock: Penstock) -> None:
    output = penstock("deploy", penstock.model(V1), "--name", "adder").stdout
    assert [line.split()[0] for line in output.splitlines()] == ["registered", "loading", "ready", "live"]


def test_deploy_of_the_same_file_is_done_and_says_so(penstock: Penstock) -> None:
    penstock("deploy", penstock.model(V1), "--name", "adder")
    assert "nothing changed" in penstock("deploy", penstock.model(V1), "--name", "adder").stdout


def test_a_refused_deployment_fails_with_the_reason(penstock: Penstock) -> None:
    result = penstock("deploy", penstock.model(b"no model"), "--name", "adder", exit_code=1)
    assert result.stderr.startswith("error: model.onnx ")
    assert result.stdout == ""


def test_a_version_that_fails_to_load_fails_the_command(penstock: Penstock) -> None:
    penstock.served.plant.server.refused["adder.1"] = "out of memory"
    assert "out of memory" in penstock("deploy", penstock.model(V1), "--name", "adder", exit_code=1).stderr


def test_failures_are_json_for_programs(penstock: Penstock) -> None:
    result = penstock("models", "nothing", "--json", exit_code=1)
    assert json.loads(result.stderr)["error"]["details"][0]["reason"] == "UNKNOWN_MODEL"


def test_models_are_listed_and_shown(penstock: Penstock) -> None:
    assert "no models yet" in penstock("models").stdout
    penstock.deploy_two()
    (listed,) = penstock.json("models")["models"]
    assert (listed["name"], listed["stable"]) == ("adder", 1)
    shown = penstock("models", "adder").stdout
    assert "penstock.models.adder.v1.Adder/Predict" in shown
    assert "stable" in shown


def test_deploy_waits_for_the_rollout_and_says_how_it_ended(penstock: Penstock) -> None:
    penstock("deploy", penstock.model(V1), "--name", "adder")
    aborted = threading.Thread(target=abort_when_exposed, args=(penstock,))
    aborted.start()
    result = penstock("deploy", penstock.model(V2), "--name", "adder", "--wait", exit_code=1)
    aborted.join()
    assert "rollout 1 moves callers from version 1 to 2" in result.stdout
    assert result.stdout.splitlines()[-1] == "aborted  abort by ada: changed my mind"
    assert "is aborted: abort by ada: changed my mind" in result.stderr


def abort_when_exposed(penstock: Penstock) -> None:
    """Not by the command: two of them in one process would share standard output."""
    with httpx.Client(base_url=f"{penstock.served.operators}/api/v1") as client:
        while "step" not in [status["state"] for status in client.get("/rollouts").json()]:
            pass
        client.post("/models/adder/rollout/abort", json={"by": "ada", "reason": "changed my mind"})


def test_an_undone_rollout_ends_with_its_own_exit_code(penstock: Penstock) -> None:
    penstock.deploy_two()
    penstock("rollout", "start", "adder", "2")
    until(penstock, "step")
    penstock("rollout", "promote", "adder", "--reason", "tested by hand")
    assert penstock("rollout", "watch", "adder").exit_code == 0
    penstock("rollout", "undo", "adder")
    until(penstock, "rolled_back")
    assert "rolled back" in penstock("rollout", "watch", "adder", exit_code=3).stderr


def until(penstock: Penstock, state: str) -> None:
    while penstock.json("rollout", "status", "adder")["state"] != state:
        pass


def test_a_rollout_is_steered_and_explained(penstock: Penstock) -> None:
    penstock.deploy_two()
    assert "no rollout is under way" in penstock("rollout", "status").stdout
    spec = penstock.folder / "spec.yaml"
    spec.write_text("steps: [5, 100]\n")
    started = penstock.json("rollout", "start", "adder", "2", "--spec", str(spec))
    assert started["step_weights_bp"][0] == 500
    until(penstock, "step")
    assert "step 1 of 2" in penstock("rollout", "status", "adder").stdout
    assert "paused" in penstock("rollout", "pause", "adder", "--reason", "sale today").stdout
    assert "possible now" in penstock("rollout", "status", "adder").stdout
    penstock("rollout", "resume", "adder")
    penstock("rollout", "abort", "adder", "--reason", "wrong file")
    until(penstock, "aborted")
    assert [status["state"] for status in penstock.json("rollout", "history", "adder")] == ["aborted"]
    for which in ("adder", str(started["rollout_id"])):
        assert "wrong file" in penstock("rollout", "explain", which).stdout


def test_a_verb_out_of_place_fails_with_what_is_possible(penstock: Penstock) -> None:
    penstock.deploy_two()
    assert "has had no rollout" in penstock("rollout", "abort", "adder", exit_code=1).stderr


def test_a_bad_spec_names_field_and_line(penstock: Penstock) -> None:
    penstock.deploy_two()
    spec = penstock.folder / "spec.yaml"
    spec.write_text("steps: [10, 5, 100]\n")
    stderr = penstock("rollout", "start", "adder", "2", "--spec", str(spec), exit_code=1).stderr
    assert "line 1: steps: expected steps that rise" in stderr


def test_the_generated_api_is_printed(penstock: Penstock) -> None:
    penstock.deploy_two()
    assert "service Adder {" in penstock("api", "adder").stdout
    assert json.loads(penstock("api", "adder", "--format", "openapi").stdout)["openapi"] == "3.1.0"
    assert "/v1/models/adder:predict" in json.loads(penstock("api", "--format", "openapi").stdout)["paths"]


def test_the_envoy_configuration_is_printed(penstock: Penstock) -> None:
    penstock.deploy_two()
    assert "dynamic_resources:" in penstock("envoy", "--bootstrap").stdout
    for form in (["envoy"], ["envoy", "--static"]):
        printed = penstock(*form).stdout
        assert "adder.1" in printed
        assert "dynamic_resources:" not in printed
    assert "choose one of" in penstock("envoy", "--static", "--bootstrap", exit_code=2).stderr


def test_feedback_is_recorded_once(penstock: Penstock) -> None:
    assert "not logged yet" in penstock("feedback", "some-id", "--label", "3").stdout
    assert "recorded before" in penstock("feedback", "some-id", "--label", "3").stdout
    both = penstock("feedback", "some-id", "--label", "3", "--reward", "1", exit_code=1)
    assert "either label or reward" in both.stderr


@pytest.mark.parametrize("command", [["models"], ["predict", "adder", '{"x": [1]}']])
def test_nothing_at_the_address_says_how_to_start_it(command: list[str]) -> None:
    dead = ["--server", "http://127.0.0.1:1", "--gateway", "http://127.0.0.1:1"]
    result = CliRunner().invoke(app, [*command, *dead])
    assert result.exit_code == 1
    assert "`penstock up` starts it" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["deploy"],
        ["deploy", "missing.onnx", "--name", "adder"],
        ["rollout", "start", "adder", "two"],
        ["nonsense"],
        ["predict", "adder", "not json"],
        ["models", "--server", "not-an-address"],
    ],
)
def test_wrong_usage_is_exit_code_2(command: list[str]) -> None:
    assert CliRunner().invoke(app, command).exit_code == 2


def test_every_command_teaches_by_example() -> None:
    def commands(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from commands(child, [*path, name])
        if not hasattr(command, "commands"):
            yield path, command

    found = list(commands(typer.main.get_command(app), ["penstock"]))
    assert len(found) > 15
    for path, command in found:
        assert f"{' '.join(path)}" in (command.help or ""), f"{path} has no example"


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["models", "--json"], ["--json", "models"]),
        (["models", "--server", "http://a", "iris"], ["--server", "http://a", "models", "iris"]),
        (["models", "--gateway=http://a"], ["--gateway=http://a", "models"]),
        (["predict", "m", "--", "--json"], ["predict", "m", "--", "--json"]),
        (["models", "--server"], ["--server", "models"]),
    ],
)
def test_global_options_work_anywhere(given: list[str], ordered: list[str]) -> None:
    assert global_options_first(given) == ordered
