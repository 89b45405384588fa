"""Prometheus' counts and golden sets decide rollouts on the real stack."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import Penstock, running
from tests.evidence.callers import calls
from tests.evidence.prometheus_server import needs_prometheus, prometheus
from tests.evidence.test_shadow_stack import STABLE
from tests.evidence.versions_onnx import wrong_between

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

_log = logging.getLogger(__name__)


def examples(path: Path, count: int) -> Path:
    """The model's task, with its truth."""
    rng = random.Random(1)
    rows = [{"inputs": {"x": [float(label := rng.randrange(2)), rng.random()]}, "label": label} for _ in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


async def state_of(penstock: Penstock, model: str, *states: str, within_s: float) -> dict[str, object]:
    async with asyncio.timeout(within_s):
        while True:
            status = await asyncio.to_thread(penstock.rollout, model)
            if status["state"] in states:
                return status
            await asyncio.sleep(0.2)


@pytest.mark.nightly
def test_a_golden_set_keeps_a_worse_candidate_from_traffic_and_lets_a_good_one_pass(tmp_path: Path) -> None:
    (tmp_path / "worse.onnx").write_bytes(wrong_between(0.0, 0.2))
    (tmp_path / "better.onnx").write_bytes(wrong_between(0.0, 0.02))
    golden = examples(tmp_path / "golden.jsonl", 1000)
    with running(tmp_path / "data") as penstock:
        penstock.deploy_live("golden", STABLE)
        worse = penstock.cli(
            "deploy", str(tmp_path / "worse.onnx"), "--name", "golden", "--golden", str(golden), "--wait"
        )
        status = penstock.rollout("golden")
        assert (worse.returncode, status["state"]) == (1, "failed"), worse.stdout + worse.stderr
        assert "points below stable, 1.0 allowed" in str(status["reason"])
        better = penstock.cli("deploy", str(tmp_path / "better.onnx"), "--name", "golden", "--golden", str(golden))
        assert better.returncode == 0, better.stdout + better.stderr
        asyncio.run(state_of(penstock, "golden", "step", within_s=60))
        found = httpx.get(f"{penstock.operators}/api/v1/models/golden/golden/3", timeout=30).json()
        assert (found["examples"], found["refusal"]) == (1000, "")
        assert found["candidate_accuracy"] > found["stable_accuracy"]
        drawing = httpx.get(f"{penstock.operators}/api/v1/models/golden/golden/3/picture", timeout=30)
        assert drawing.headers["content-type"] == "image/svg+xml"
        assert drawing.text.startswith("<svg")


def spec(url: str) -> dict[str, object]:
    """Counts of Envoy, as Prometheus scraped them."""

    def counter(version: str, more: str = "") -> str:
        return f'sum(envoy_penstock_requests{{model="{{{{model}}}}",version="{{{{{version}}}}}"{more}}}) or vector(0)'

    bad = ',gs=~"2|4|8|13|14|none"'
    return {
        "steps": [50, 100],
        "min_step": "5s",
        "margins": {"errors": "5%"},
        "prometheus": {
            "url": url,
            "queries": {
                "requests": {version: counter(version) for version in ("stable", "candidate")},
                "errors": {version: counter(version, bad) for version in ("stable", "candidate")},
                "age": "time() - max(timestamp(envoy_server_uptime))",
            },
        },
    }


@needs_prometheus
@pytest.mark.nightly
async def test_prometheus_evidence_rolls_a_failing_candidate_back_and_moves_a_good_one_on(tmp_path: Path) -> None:
    with running(tmp_path / "data") as penstock:
        ports = json.loads((penstock.data_dir / "run" / "ports.json").read_text())
        envoy = f"127.0.0.1:{ports['envoy_admin']}"
        with prometheus(tmp_path, envoy, path="/stats/prometheus") as url:
            penstock.deploy_live("watched", STABLE)
            for number, candidate, ending in (
                (2, wrong_between(0.0, 0.08, fails_between=(0.5, 0.8)), ("rolled_back",)),
                (3, wrong_between(0.0, 0.01), ("step", "baking", "promoted")),
            ):
                assert penstock.deploy("watched", candidate, rollout="none")[-1]["stage"] == "unrouted"
                started = await asyncio.to_thread(
                    httpx.post,
                    f"{penstock.operators}/api/v1/models/watched/rollouts",
                    json={"candidate": number, "spec": spec(url)},
                    timeout=30,
                )
                assert started.status_code == 201, started.text
                async with calls(penstock, "watched", per_s=40, labels=False):
                    status = await state_of(penstock, "watched", *ending, within_s=120)
                    if number == 3:
                        async with asyncio.timeout(120):
                            while status["step"] != 2:
                                await asyncio.sleep(0.5)
                                status = await asyncio.to_thread(penstock.rollout, "watched")
                _log.info("version %d: %s, %s", number, status["state"], status["reason"])
