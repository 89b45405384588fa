"""The capacity bench: its formula finds what made the points, its Envoys behave like Envoys, its page says what was
measured. Nothing is timed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envoy.ads import NotAcknowledged
from gateway.envoy.ads_stream import EnvoyStream, Served, ServedRuntime
from gateway.envoy.compile import compile
from gateway.envoy.snapshot import Resource, TypeUrl
from gateway.envoy.wire import to_wire
from loadtest.bench.capacity.charts import cost_chart, fleet_chart
from loadtest.bench.capacity.connections import Connections, measure_connections
from loadtest.bench.capacity.envoys import answers, connected, live, record, subscriptions
from loadtest.bench.capacity.fit import Fit, Point, fit
from loadtest.bench.capacity.fleet import Cost, Fleet, Fleets, measure_fleets
from loadtest.bench.capacity.ladder import FRONT, Protocol, Rung, models, rungs
from loadtest.bench.capacity.report import Costs, page
from loadtest.bench.gateway.calls import BenchModel, WrongAnswer, call_once
from loadtest.bench.gateway.fronts import Front, running
from loadtest.bench.gateway.measure import Measured, Turn
from loadtest.bench.gateway.plane import CANARY_OF, running_plane
from tests.envoy.states import model, settings, state

LADDER = models()
SMALLER = [model for model in LADDER if model.x.size < 5_000]
SIZES = [(25, 1), (1_000, 1), (16_000, 1), (600_000, 1), (5_000, 256), (260_000, 64)]


@given(st.floats(10, 500), st.floats(0.0001, 0.01), st.floats(0.01, 2), st.sampled_from(["byte", "row", "neither"]))
def test_the_formula_that_made_the_points_is_found(request_us: float, byte_us: float, row_us: float, flat: str) -> None:
    made = Fit(request_us, 0.0 if flat == "byte" else byte_us, 0.0 if flat == "row" else row_us)
    found = fit([Point(size, rows, made.us(size, rows)) for size, rows in SIZES])
    assert found.request_us == pytest.approx(made.request_us, rel=1e-3)
    assert found.byte_us == pytest.approx(made.byte_us, rel=1e-3, abs=1e-8)
    assert found.row_us == pytest.approx(made.row_us, rel=1e-3, abs=1e-4)


@given(st.lists(st.floats(1, 1e5), min_size=len(SIZES), max_size=len(SIZES)))
def test_no_request_is_ever_said_to_cost_less_than_nothing(measured: list[float]) -> None:
    found = fit([Point(size, rows, us) for (size, rows), us in zip(SIZES, measured, strict=True)])
    assert min(found.request_us, found.byte_us, found.row_us) >= 0


def test_cores_follow_the_formula() -> None:
    found = Fit(request_us=100, byte_us=0.002, row_us=0.5)
    assert found.us(500_000, rows=101) == pytest.approx(100 + 1_000 + 50)
    assert found.cores(1_000, 500_000, 101, utilisation=0.5) == pytest.approx(1_000 * 1_150e-6 / 0.5)
    assert found.residual(Point(0, 1, 80)) == pytest.approx(0.25)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    cores = sorted(os.sched_getaffinity(0))
    folder = tmp_path_factory.mktemp("capacity")
    with running(folder, LADDER, envoy_cpu=cores[0], load_cpu=cores[-1], names=(FRONT,)) as fronts:
        yield fronts[FRONT]


@pytest.mark.parametrize("ladder", LADDER, ids=lambda model: model.name)
def test_every_rung_is_answered_rightly(ladder: BenchModel, front: Front) -> None:
    for rung in rungs([ladder], 1):
        case = rung.case
        answer, _ = call_once(case.wire, front.port, case.path, case.body, case.headers)
        case.check(answer)
        assert rung.body_bytes == len(case.body)


def test_a_batch_with_a_row_too_few_is_refused() -> None:
    batch = next(model for model in LADDER if model.rows > 1)
    single = next(model for model in LADDER if model.rows == 1)
    with pytest.raises(WrongAnswer, match=f"expected {batch.rows} rows"):
        batch.check_infer(single.infer_response()[5:])


def test_connections_of_both_protocols_are_answered_and_cost_something() -> None:
    cores = sorted(os.sched_getaffinity(0))
    measured = measure_connections(20, envoy_cpu=cores[0], load_cpu=cores[-1], progress=lambda line: None)
    assert [one.protocol for one in measured] == ["HTTP/1.1", "HTTP/2"]
    assert all(one.us_each > 0 for one in measured)


class _Exchange:
    """A simulated Envoy before the control plane's side of its stream, without sockets."""

    def __init__(self, held: dict[TypeUrl, dict[str, str]]) -> None:
        self.stream = EnvoyStream()
        self.held = held
        for request in subscriptions("one", held):
            self.stream.receive(request)

    def take(self, served: Served, lease: ServedRuntime) -> list[str]:
        """Everything that comes, by type."""
        taken = []
        while response := self.stream.respond(served, lease, to_wire):
            taken.append(TypeUrl(response.type_url).name)
            record(self.held, response)
            for request in answers(response):
                self.stream.receive(request)
        return taken


def test_a_simulated_envoy_takes_everything_and_the_next_one_that_holds_it_nothing() -> None:
    snapshot = compile(state(model("digits", 1, stable=1), model("iris", 1, stable=1)), settings())
    served = Served(snapshot.resources, 1)
    layer = Resource.of(TypeUrl.RUNTIME, {"name": "penstock", "layer": {}})
    lease = ServedRuntime(to_wire(layer), layer.version, 1)
    first = _Exchange({})
    assert first.take(served, lease) == ["RUNTIME", "CLUSTER", "SCOPE", "ROUTES"]
    assert first.stream.settled(served)
    assert first.stream.renewed(1)
    assert first.held[TypeUrl.ROUTES].keys() == snapshot.resources[TypeUrl.ROUTES].keys()
    second = _Exchange(first.held)
    assert second.take(served, lease) == ["RUNTIME"]
    assert second.stream.settled(served)
    fewer = compile(state(model("digits", 1, stable=1)), settings())
    assert second.take(Served(fewer.resources, 2), lease)
    assert second.stream.settled(Served(fewer.resources, 2))


async def test_a_change_is_done_when_the_last_of_the_fleet_has_it(tmp_path: Path) -> None:
    async with running_plane(tmp_path, 9) as plane:
        plane.fill(2)
        plane.data_plane.load(plane.routing.state())
        port, allowed = plane.settings.control_grpc.port, asyncio.Event()
        served = [asyncio.Event() for _ in range(3)]
        envoys = [asyncio.create_task(live(port, f"quick-{n}", {}, e, recording=False)) for n, e in enumerate(served)]
        envoys.append(asyncio.create_task(_slow_to_take_weights(port, allowed)))
        for event in served:
            await event.wait()
        while len(plane.ads.connected) < len(envoys):
            await asyncio.sleep(0)
        await plane.routing.stage(CANARY_OF, 2)
        with pytest.raises(NotAcknowledged):
            await plane.ads.lease({CANARY_OF: 500}, timeout_s=0.3)
        allowed.set()
        await plane.ads.lease({CANARY_OF: 500})
        for task in envoys:
            task.cancel()
        await asyncio.gather(*envoys, return_exceptions=True)


async def _slow_to_take_weights(port: int, allowed: asyncio.Event) -> None:
    async with connected(port) as stream:
        for request in subscriptions("slow", {}):
            await stream.write(request)
        while (response := await stream.read()) is not grpc.aio.EOF:
            if response.type_url == TypeUrl.RUNTIME and response.resources[0].HasField("ttl"):
                await allowed.wait()
            for request in answers(response):
                await stream.write(request)


def test_a_fleet_grows_and_every_change_reaches_all_of_it() -> None:
    said: list[str] = []
    fleets = measure_fleets([1, 4], models=3, heartbeats=1, repeats=1, progress=said.append)
    assert [fleet.envoys for fleet in fleets.sizes] == [1, 4]
    for fleet in fleets.sizes:
        for cost in (fleet.joined, fleet.one_more, fleet.weight, fleet.heartbeat):
            assert cost.seconds > 0
            assert cost.envoys_s > 0
    assert len(said) == 3


def _measured(rung: Rung, us: float, failed: int = 0) -> Measured:
    return Measured(rung.case, (Turn(us, 0.5, 100, failed), Turn(us + 1, 1.0, 100, 0)))


MADE = Fit(request_us=100, byte_us=0.002, row_us=0.5)
FLEETS = Fleets(
    models=7,
    resident_bytes=100_000_000,
    sizes=[
        Fleet(n, Cost(2, 1, 1), Cost(n / 500, n / 2_000, 0.1), Cost(0.2, 0.1, 0), Cost(1, n / 4_000, 0), 150_000_000)
        for n in (1, 1_000)
    ],
)


def _costs(failed: int = 0) -> Costs:
    rows = [(rung, _measured(rung, MADE.us(rung.body_bytes, rung.rows), failed)) for rung in rungs(SMALLER, 10)]
    return Costs(rows, idle_bytes=80_000_000, peak_bytes=200_000_000)


def test_the_page_gives_the_formula_its_residuals_and_what_a_control_plane_feeds() -> None:
    costs = _costs(failed=1)
    fits = {protocol: fit(costs.points(protocol)) for protocol in Protocol}
    connections = [Connections("HTTP/1.1", 50, 10_240, 200)]
    text = page(costs, fits, connections, FLEETS, command="bench", charts="capacity")
    for protocol in Protocol:
        assert f"| {protocol} | 100.0 | 2.00 | 0.50 | " in text
    assert f"{200 * len(costs.rungs):,} requests, {costs.failed} failed" in text
    assert "| HTTP/1.1 | 10 KiB | 200 us |" in text
    # Half a core for renewals of 250 us each would be 2,000; publications of 2 ms each allow 2,500.
    assert "feeds about 2,000 Envoys" in text
    assert "| 1,000 | 2.00 s | 2,000 ms | 500 ms | 200 ms | 100 ms | 25.0% of a core | 50 MB |" in text
    without = page(costs, fits, connections, None, command="bench", charts="capacity")
    assert "Envoys of one control plane" not in without


def test_the_charts_name_what_they_show(tmp_path: Path) -> None:
    costs = _costs()
    cost_chart({protocol: (MADE, costs.points(protocol)) for protocol in Protocol}, tmp_path / "cost.svg")
    fleet_chart(FLEETS.sizes, tmp_path / "fleet.svg")
    assert _texts(tmp_path / "cost.svg") >= {
        "body of the request, bytes",
        "requests per second of one core",
        *(f"{protocol}, formula for one row" for protocol in Protocol),
    }
    assert _texts(tmp_path / "fleet.svg") >= {"one more model", "weight change", "CPU, % of a core"}


def _texts(path: Path) -> set[str]:
    found: Any = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(element.itertext()).strip() for element in found}
