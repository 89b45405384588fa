"""`penstock rollout report`, `replay` and `plan` on a saved journal: no server is asked."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from rollout.machine import FINAL
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, Behaviour, make_controller, make_world, running, until


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rollout that was rolled back, as a file."""

    async def test(clock: VirtualClock) -> str:
        world = make_world(clock, Behaviour(errors=0.05))
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, *FINAL)
        return "".join(controller.journal(1))

    path = tmp_path_factory.mktemp("journal") / "digits.jsonl"
    path.write_text(run_virtual(test))
    return path


def penstock(*arguments: object, exit_code: int = 0) -> Result:
    flags = ["--server", "http://127.0.0.1:1"]
    result = CliRunner().invoke(app, [*flags, *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


def penstock_json(*arguments: object) -> dict[str, object]:
    value: dict[str, object] = json.loads(penstock("--json", *arguments).stdout)
    return value


def test_replay_says_that_all_is_the_same(journal: Path) -> None:
    assert "the same, byte for byte" in penstock("rollout", "replay", journal).stdout
    assert penstock_json("rollout", "replay", journal)["same"] is True


def test_replay_exits_1_when_a_count_was_changed(journal: Path, tmp_path: Path) -> None:
    lines = journal.read_text().splitlines(keepends=True)
    index = next(i for i, line in enumerate(lines) if '"kind":"tick"' in line and '"ok":' in line)
    record = json.loads(lines[index])
    record["body"]["arms"]["1"]["bad"] = 9
    forged = tmp_path / "forged.jsonl"
    forged.write_text("".join([*lines[:index], json.dumps(record) + "\n", *lines[index + 1 :]]))
    result = penstock("rollout", "replay", forged, exit_code=1)
    assert "come out otherwise" in result.stderr
    assert "verdict" in result.stdout


def test_a_report_is_written_in_the_form_of_its_ending(journal: Path, tmp_path: Path) -> None:
    for name, begins in (("r.html", b"<!doctype html>"), ("r.svg", b"<?xml"), ("r.png", b"\x89PNG")):
        penstock("rollout", "report", journal, "-o", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begins)
    refused = penstock("rollout", "report", journal, "-o", tmp_path / "r.gif", exit_code=2)
    assert "expected a file that ends in .html, .svg, .png, received .gif" in refused.stderr


def test_plan_rehearses_described_and_recorded_traffic(journal: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("steps: [20, 100]\nwarmup: {start: 5s, step: 5s}\n")
    good = penstock_json("rollout", "plan", spec, "--rps", 200)
    bad = penstock_json("rollout", "plan", spec, "--traffic", journal)
    assert (good["state"], bad["state"]) == ("promoted", "rolled_back")
    assert good["forecasts"]
    assert "promoted after" in penstock("rollout", "plan", spec, "--rps", 200).stdout


def test_plan_wants_one_kind_of_traffic_and_a_sound_spec(journal: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("steps: [20, 10]\n")
    assert "give either" in penstock("rollout", "plan", spec, exit_code=2).stderr
    refused = penstock("rollout", "plan", spec, "--rps", 5, exit_code=1).stderr
    assert "line 1: steps: expected steps that rise" in refused


def test_what_is_no_journal_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("{}\n")
    assert "line 1: expected a rollout's journal of format 1" in penstock("rollout", "replay", path, exit_code=1).stderr
    assert "cannot be read" in penstock("rollout", "replay", tmp_path / "none.jsonl", exit_code=1).stderr
