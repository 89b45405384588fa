"""Every client against the real stack: predict, wrong input, deadline, pinned version, sticky user, feedback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from penstock_client import record
from penstock_client.fake import Feedback
from penstock_client.fake_gateway import FakeGateway

from tests import models
from tests.clients.languages.programs import LANGUAGES, MODEL, ROW, Ask, Question
from tests.e2e.running import Penstock, running

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]

HALF = "steps: [50, 100]\nmin_step: 10m\n"
SLOW = 20_000
"""Rounds of work for a large input: seconds, on any machine."""


def labelled(rounds: int) -> bytes:
    """`slow_on_large_input` with the place of the largest value as its label, so that feedback has what to refer to."""
    made = onnx.load_from_string(models.slow_on_large_input(rounds))
    made.graph.node.append(onnx.helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0))
    made.graph.output.append(onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["N"]))
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """Version 1 is stable, version 2 has half of the traffic."""
    with running(tmp_path_factory.mktemp("penstock"), more_flags=("--allow-origin", "*")) as started:
        started.deploy_live(MODEL, labelled(SLOW))
        started.deploy(MODEL, labelled(SLOW + 1), spec=HALF)
        until = time.monotonic() + 60
        while started.rollout(MODEL)["state"] != "step":
            assert time.monotonic() < until, started.rollout(MODEL)
        yield started


@pytest.fixture(scope="module", params=LANGUAGES)
def ask(request: pytest.FixtureRequest, penstock: Penstock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    language = LANGUAGES[request.param]
    language.skip_unless_possible()
    with language.program(penstock, tmp_path_factory.mktemp(request.param)) as asking:
        yield asking


def test_predict(ask: Ask) -> None:
    said = ask(Question())
    assert said.y == ROW
    assert said.lines["version"] in ("1", "2")
    assert said.lines["request"]


def test_wrong_input(ask: Ask) -> None:
    said = ask(Question(x=[1.0, 2.0, 3.0]))
    assert (said.lines["code"], said.lines["reason"]) == ("3", "WRONG_COUNT")
    assert said.details["field"] == "instances[0].x"
    assert said.details["received"].startswith("3")
    assert "expected 4 values" in said.lines["message"]


def test_deadline(ask: Ask) -> None:
    assert ask(Question(x=[1000.0] * 4, timeout_ms=100)).lines["code"] == "4"


@pytest.mark.parametrize("version", [1, 2])
def test_pinned_version(ask: Ask, version: int) -> None:
    assert ask(Question(version=version)).lines["version"] == str(version)


def test_unknown_version(ask: Ask) -> None:
    said = ask(Question(version=9))
    assert (said.lines["code"], said.lines["reason"]) == ("5", "UNKNOWN_VERSION")


def test_sticky_user(ask: Ask, penstock: Penstock) -> None:
    seen = {user: {ask(Question(user=user)).lines["version"] for _ in range(3)} for user in map(str, range(8))}
    assert all(len(versions) == 1 for versions in seen.values())
    # Eight users on one side of an even split are one chance in 128, and the hash makes it the same every time.
    assert set.union(*seen.values()) == {"1", "2"}


def test_feedback(ask: Ask, penstock: Penstock) -> None:
    said = ask(Question(label=3))
    assert said.lines["feedback"] == "given"
    again = penstock.cli("feedback", said.lines["request"], "--label", "3")
    assert "recorded before" in again.stdout, again.stdout + again.stderr


def test_the_same_program_against_recordings(
    ask: Ask, request: pytest.FixtureRequest, penstock: Penstock, tmp_path: Path
) -> None:
    if request.node.callspec.params["ask"] not in ("cpp", "java", "kotlin", "go", "ruby", "node"):
        pytest.skip("the Python clients against the fake gateway are in test_fake.py; pages have penstock-client/fake")
    path, right, wrong = tmp_path / "asked.json", tmp_path / "right.json", tmp_path / "wrong.json"
    right.write_text(json.dumps(Question().request))
    wrong.write_text(json.dumps(Question(x=[1.0]).request))
    given = [penstock.authority, MODEL, str(right), str(wrong), "--version", "2", "--out", str(path)]
    assert record.main(given) == 0
    with FakeGateway(path) as fake:
        serving = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            address = fake.url.removeprefix("http://")
            said = ask(Question(version=2, label=3, address=address))
            assert (said.y, said.lines["version"], said.lines["feedback"]) == (ROW, "2", "given")
            assert fake.fake.given == [Feedback(said.lines["request"], 3, None, None)]
            refused = ask(Question(x=[1.0], version=2, address=address))
            assert (refused.lines["reason"], refused.details["field"]) == ("WRONG_COUNT", "instances[0].x")
            assert ask(Question(x=[9.0] * 4, address=address)).lines["reason"] == "NOT_RECORDED"
        finally:
            fake.shutdown()
            serving.join()
