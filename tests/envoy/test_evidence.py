"""What happened to predictions, as the judge reads it from a real Envoy."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3 import als_pb2
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.envoy.yaml_config import bootstrap_yaml
from gateway.server.access_log import EntryReader
from rollout.clock import SystemClock
from rollout.evidence.combine import Combined
from rollout.evidence.envoy import EnvoyEvidence, outcome
from rollout.evidence.envoy_counts import envoy_edge, latency_limits_us, limit_of
from rollout.evidence.exposition import BadExposition, parse
from rollout.evidence.feedback_store import Prediction
from rollout.evidence.logged import LoggedRequest
from rollout.ports import ArmCounts, Outcome, Tick
from tests.envoy.live import running_envoy, running_plane, until
from tests.envoy.states import model


async def test_counts_each_version_by_outcome(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, 2, stable=1, canary=2), model("iris", 1, stable=1)) as plane:
        evidence = EnvoyEvidence(admins=[plane.settings.admin], clock=SystemClock())
        try:
            assert (await evidence.read(["digits"]))["digits"].missing, "there is nothing to compare the first with"
            plane.inference.broken = {"digits.2"}
            for _ in range(7):
                assert (await plane.predict("digits")).status_code == 200
            for _ in range(3):
                assert (await plane.predict("digits", pin="2")).status_code == 500
            for _ in range(2):
                wrong = await plane.client.post("/v1/models/digits:predict", json={"instances": [{"x": [1.0, 2.0]}]})
                assert wrong.status_code == 400
            await plane.predict("iris")
            await plane.predict("nobody")
            arms = await _read(evidence, "digits", timed=7)
            assert (arms[1].ok, arms[1].bad, arms[1].caller) == (7, 0, 2)
            assert (arms[2].ok, arms[2].bad, arms[2].caller) == (0, 3, 0)
            assert sum(arms[1].latency) == 7, "successes are timed, refusals are not"
            assert not sum(arms[2].latency)
            tick = (await evidence.read(["digits"]))["digits"]
            assert not tick.missing
            assert tick.edges_us == latency_limits_us()
            assert all(not arm.requests for arm in tick.arms.values()), "each event is told once"
        finally:
            await evidence.aclose()


async def test_an_envoy_that_restarted_misses_one_tick(tmp_path: Path) -> None:
    async with running_plane(tmp_path, model("digits", 1, stable=1)) as plane:
        config, admin = bootstrap_yaml(plane.settings), plane.settings.admin.port
        evidence = EnvoyEvidence(admins=[plane.settings.admin], clock=SystemClock(), timeout_s=5.0)
        try:
            await _read_until_present(evidence, "digits")
            await plane.predict("digits")
            await _read_until_present(evidence, "digits")
            await plane.stop_envoy()
            gone = (await evidence.read(["digits"]))["digits"]
            assert "could not be read" in gone.missing
            async with running_envoy(config, tmp_path, admin, "again"):
                await plane.ads.wait_settled(timeout_s=30)
                back = (await evidence.read(["digits"]))["digits"]
                assert "restarted" in back.missing
                await plane.predict("digits")
                assert (await _read(evidence, "digits", timed=1))[1].ok == 1
        finally:
            await evidence.aclose()


async def test_the_access_log_names_request_version_label_caller_and_outcome(tmp_path: Path) -> None:
    entries: asyncio.Queue[HTTPAccessLogEntry] = asyncio.Queue(100)
    reader = EntryReader("X-User-Id")

    async def stream(requests: object, context: object) -> als_pb2.StreamAccessLogsResponse:
        async for message in requests:  # type: ignore[attr-defined]  # grpc publishes no types
            for entry in message.http_logs.log_entry:
                await entries.put(entry)
        return als_pb2.StreamAccessLogsResponse()

    handler = grpc.stream_unary_rpc_method_handler(
        stream, als_pb2.StreamAccessLogsMessage.FromString, als_pb2.StreamAccessLogsResponse.SerializeToString
    )
    service = "envoy.service.accesslog.v3.AccessLogService"
    extra = [grpc.method_handlers_generic_handler(service, {"StreamAccessLogs": handler})]
    async with running_plane(tmp_path, model("digits", 1, stable=1), extra=extra) as plane:

        async def logged() -> tuple[LoggedRequest, Prediction | None]:
            found = reader.read(await entries.get())
            assert found is not None
            return found

        response = await plane.predict("digits")
        await plane.predict("nobody")
        anonymous, prediction = await logged()
        assert prediction is not None
        assert prediction.request_id == response.headers["x-request-id"]
        assert (prediction.model, prediction.version) == ("digits", 1)
        assert entries.empty(), "only predictions are logged"
        assert (anonymous.outcome, anonymous.sticky) == (Outcome.OK, False)
        assert anonymous.latency_us is not None
        assert 0 < anonymous.latency_us < 30e6

        await plane.predict("digits", user="ann")
        plane.inference.broken = {"digits.1"}
        await plane.predict("digits", user="ann")
        await plane.client.post("/v1/models/digits:predict", json={"instances": 3}, headers={"x-user-id": "bob"})
        found = [(await logged())[0] for _ in range(3)]
        assert [request.outcome for request in found] == [Outcome.OK, Outcome.BAD, Outcome.CALLER], "failed ones too"
        assert found[0].caller == found[1].caller != found[2].caller
        assert all(request.sticky for request in found)
        assert found[1].latency_us is None


async def _read_until_present(evidence: EnvoyEvidence, name: str) -> None:
    async def present() -> bool:
        return not (await evidence.read([name]))[name].missing

    await until(present)


async def _read(evidence: EnvoyEvidence, name: str, *, timed: int) -> dict[int, ArmCounts]:
    """Ticks added up until `timed` successes have their latency: Envoy merges histograms once a second."""
    total: dict[int, ArmCounts] = {}
    while sum(sum(arm.latency) for arm in total.values()) < timed:
        read = (await Combined(evidence).read([name]))[name]
        assert not read.missing
        total = {v: _sum(total.get(v, ArmCounts()), arm) for v, arm in read.arms.items()}
        await asyncio.sleep(0.1)
    return total


def _sum(a: ArmCounts, b: ArmCounts) -> ArmCounts:
    latency = tuple(x + y for x, y in zip(a.latency, b.latency, strict=True)) if a.latency else b.latency
    return ArmCounts(ok=a.ok + b.ok, bad=a.bad + b.bad, caller=a.caller + b.caller, latency=latency)


@pytest.mark.parametrize(
    ("gs", "flags", "code", "how"),
    [
        ("0", "-", "200", Outcome.OK),
        ("3", "-", "400", Outcome.CALLER),
        ("8", "-", "413", Outcome.CALLER),
        ("8", "-", "429", Outcome.BAD),
        ("5", "-", "404", Outcome.BAD),
        ("13", "-", "500", Outcome.BAD),
        ("14", "URX,UF", "503", Outcome.BAD),
        ("4", "UT", "504", Outcome.BAD),
        ("-", "DC", "0", Outcome.CALLER),
        ("0", "DR", "0", Outcome.CALLER),
        ("-", "UF", "503", Outcome.BAD),
    ],
)
def test_outcomes(gs: str, flags: str, code: str, how: Outcome) -> None:
    assert outcome(gs=gs, flags=flags, code=code) is how


async def test_sources_are_merged_by_version() -> None:
    envoy = Tick(at=5.0, seconds=1.0, arms={1: ArmCounts(ok=9, latency=(9, 0)), 2: ArmCounts(bad=1)}, edges_us=(100,))
    labels = Tick(at=6.0, seconds=0.9, arms={2: ArmCounts(labelled=4, wrong=1), 3: ArmCounts(labelled=1)})
    merged = (await Combined(_Fixed(envoy), _Fixed(labels)).read(["m"]))["m"]
    assert merged == Tick(
        at=5.0,
        seconds=1.0,
        arms={
            1: ArmCounts(ok=9, latency=(9, 0)),
            2: ArmCounts(bad=1, labelled=4, wrong=1),
            3: ArmCounts(labelled=1),
        },
        edges_us=(100,),
    )
    missing = (await Combined(_Fixed(envoy), _Fixed(Tick(at=6.0, seconds=1.0, missing="disk"))).read(["m"]))["m"]
    assert (missing.missing, missing.arms) == ("disk", {})


class _Fixed:
    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    async def read(self, models: object) -> dict[str, Tick]:
        return {"m": self._tick}


def test_limits_are_where_envoy_can_count_exactly() -> None:
    limits = latency_limits_us()
    assert (limits[0], limits[-1]) == (100, 60_000_000)
    for low, high in pairwise(limits):
        assert 1.0 < high / low <= 1.101
        assert high / low < 1.07 or high < 3 * 10 ** (len(str(high)) - 1), "only the coarsest bins are wider"
    for limit in limits:
        assert len(str(limit).rstrip("0")) <= 2
        assert limit_of(envoy_edge(limit)) == limit


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from('"\\\n{}=,'), max_size=12)


@given(st.lists(st.tuples(st.dictionaries(st.from_regex(r"\A[a-z]{1,5}\Z"), TEXT, max_size=3), st.integers(0, 2**53))))
def test_reads_what_another_reader_reads(samples: list[tuple[dict[str, str], int]]) -> None:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

    text = "# TYPE envoy_x counter\n"
    for labels, value in samples:
        inside = ",".join(f'{name}="{escaped(told)}"' for name, told in labels.items())
        text += f"envoy_x{{{inside}}} {value}\n"
    oracle = [(s.labels, s.value) for family in text_string_to_metric_families(text) for s in family.samples]
    assert [(dict(s.labels), s.value) for s in parse(text)] == oracle == [(labels, float(v)) for labels, v in samples]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        samples = list(parse(text))
    except BadExposition:
        return
    assert len(samples) <= text.count("\n") + 1


@pytest.mark.parametrize(
    "line", ["name{a=b} 1", 'name{a="b} 1', "name", 'name{a="b"} one', '{a="b"} 1', 'n{a="b" c="d"} 1']
)
def test_what_is_not_the_format_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadExposition, match="line 2"):
        list(parse(f"# comment\n{line}\n"))
