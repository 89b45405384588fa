"""The gateway bench reads its tools rightly, sends what it says, and counts what went wrong. Nothing is timed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench.gateway import fresh, report, scale
from loadtest.bench.gateway.calls import INFER_PATH, LARGE, SMALL, BenchModel, WrongAnswer, call_once, framed
from loadtest.bench.gateway.cases import PLAIN, Case, Target, cases
from loadtest.bench.gateway.cpu import NoAccounting, ThreadTime, parse_schedstat, process_time
from loadtest.bench.gateway.fresh import Fresh
from loadtest.bench.gateway.fronts import Front, running
from loadtest.bench.gateway.load import LoadFailed, LoadResult, parse_h2load
from loadtest.bench.gateway.measure import Measured, Turn, failures
from loadtest.bench.gateway.scale import Scale
from loadtest.bench.gateway.stub import Kind, Port, StubConnection, accepting, frame

ALL_WELL = """\
Application protocol: h2c
progress: 100% done

finished in 55.03ms, 3634.32 req/s, 405.86KB/s
requests: 200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 200 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 22.33KB (22871) total, 8.25KB (8451) headers (space savings 77.64%), 8.59KB (8800) data
                     min         max         mean         sd        +/- sd
time for request:     1.55ms     13.52ms      7.63ms      3.22ms    69.00%
"""
NOT_FOUND = """\
finished in 1.50s, 2511.90 req/s, 0B/s
requests: 200 total, 200 started, 200 done, 0 succeeded, 200 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 200 4xx, 0 5xx
traffic: 0B (0) total, 30.27KB (31000) headers (space savings 0.00%), 43.75KB (44800) data
"""
NOBODY_LISTENS = """\
finished in 2.91ms, 0.00 req/s, 0B/s
requests: 20 total, 0 started, 0 done, 0 succeeded, 20 failed, 20 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 0B (0) total, 0B (0) headers (space savings 0.00%), 0B (0) data
"""


def test_h2load_is_read_whatever_the_unit_of_time() -> None:
    result = parse_h2load(ALL_WELL)
    assert (result.seconds, result.total, result.status_2xx, result.data_bytes) == (0.05503, 200, 200, 8800)
    assert parse_h2load(NOT_FOUND).seconds == 1.5


@pytest.mark.parametrize(("text", "failed"), [(ALL_WELL, 0), (NOT_FOUND, 200), (NOBODY_LISTENS, 20)])
def test_every_request_that_did_not_succeed_counts_as_failed(text: str, failed: int) -> None:
    assert failures(parse_h2load(text), answer_bytes=44) == failed


def test_a_grpc_error_is_a_200_without_a_body_and_counts_as_failed() -> None:
    result = LoadResult(seconds=1.0, total=200, succeeded=200, status_2xx=200, data_bytes=197 * 44)
    assert failures(result, answer_bytes=44) == 3
    longer = LoadResult(seconds=1.0, total=200, succeeded=200, status_2xx=200, data_bytes=200 * 44 + 7)
    assert failures(longer, answer_bytes=44) == 1


@given(st.sampled_from(ALL_WELL.splitlines()[3:7]))
def test_output_without_one_of_its_lines_is_refused(line: str) -> None:
    with pytest.raises(LoadFailed, match="has nothing like"):
        parse_h2load(ALL_WELL.replace(line, ""))


def test_schedstat_is_time_used_then_time_waited() -> None:
    assert parse_schedstat("2954519341 76023178 3812\n") == ThreadTime(used_ns=2954519341, waited_ns=76023178)


def test_a_process_uses_time_and_a_missing_one_says_so() -> None:
    before = process_time(os.getpid())
    while (process_time(os.getpid()) - before).used_ns <= 0:  # the kernel counts at its ticks
        sum(range(100_000))
    with pytest.raises(NoAccounting, match="no CPU time of process 0"):
        process_time(0)


class Written(asyncio.Transport):
    """Keeps what a protocol writes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = b""

    def write(self, data: Any) -> None:
        self.bytes += data


def frames(data: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    while data:
        size = int.from_bytes(data[:3], "big")
        yield data[3], data[4], data[5:9], data[9 : 9 + size]
        data = data[9 + size :]


@given(cuts=st.lists(st.integers(0, 120), max_size=6))
def test_the_stub_answers_alike_however_its_input_is_cut(cuts: list[int]) -> None:
    one, three = b"\0\0\0\x01", b"\0\0\0\x03"
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(
        (
            frame(4, 0, bytes(4), b""),
            frame(1, 4, one, b"headers"),
            frame(6, 0, bytes(4), b"12345678"),
            frame(0, 0, one, b"half a body"),
            frame(1, 5, three, b"headers only"),
            frame(0, 1, one, b"the rest"),
        )
    )
    stub, written = StubConnection(b"answer"), Written()
    stub.connection_made(written)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(sent)], strict=True):
        stub.data_received(sent[start:end])
    received = list(frames(written.bytes))[2:]  # its own settings and window first
    assert [(kind, stream) for kind, _, stream, _ in received] == [
        (4, bytes(4)),
        (6, bytes(4)),
        *((kind, three) for kind in (1, 0, 1)),
        *((kind, one) for kind in (1, 0, 1)),
    ]
    assert [payload for kind, _, _, payload in received if kind in (0, 6)] == [b"12345678", b"answer", b"answer"]
    assert [flags & 1 for kind, flags, _, _ in received if kind < 2] == [0, 0, 1, 0, 0, 1]


async def test_the_stub_is_a_grpc_server_to_a_real_client() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StubConnection(SMALL.infer_response()), "127.0.0.1", 0)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as channel:
        call = channel.unary_unary(INFER_PATH)
        for answer in await asyncio.gather(*(call(SMALL.infer_request()[5:]) for _ in range(20))):
            SMALL.check_infer(answer)
        SMALL.check_infer(await call(LARGE.infer_request()[5:]))


@pytest.mark.parametrize(
    ("kind", "of_it", "of_others"),
    [
        (Kind.INFER, BenchModel.infer_request, BenchModel.typed_request),
        (Kind.TYPED, BenchModel.typed_request, BenchModel.infer_request),
    ],
    ids=("infer", "typed"),
)
def test_the_stub_takes_only_what_was_transcoded(
    kind: Kind, of_it: Callable[[BenchModel], bytes], of_others: Callable[[BenchModel], bytes]
) -> None:
    right = [of_it(model) for model in (SMALL, LARGE)]
    wrong = [of_others(SMALL), of_others(LARGE), SMALL.json_request(), b""]
    port = accepting(kind, (SMALL, LARGE))
    assert port is not None
    for body in (*wrong, *right, *wrong):
        assert port.right(len(body), partial(bytes, body)) is (body in right)


async def test_a_request_that_went_upstream_as_it_came_is_refused() -> None:
    loop = asyncio.get_running_loop()
    port = Port(SMALL.infer_response(), accepting(Kind.INFER, (SMALL,)))
    server = await loop.create_server(port.connection, "127.0.0.1", 0)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as channel:
        call = channel.unary_unary(INFER_PATH)
        other = BenchModel("small", SMALL.x + 1, SMALL.y).infer_request()
        for body in (SMALL.typed_request(), other, SMALL.json_request()):
            with pytest.raises(grpc.aio.AioRpcError, match="the stub expected a prediction of the bench"):
                await call(body[5:])
        SMALL.check_infer(await call(SMALL.infer_request()[5:]))


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Front]]:
    cores = sorted(os.sched_getaffinity(0))
    folder = tmp_path_factory.mktemp("bench")
    with running(folder, (SMALL, LARGE), envoy_cpu=cores[0], load_cpu=cores[-1]) as all_of_them:
        yield all_of_them


@pytest.mark.parametrize("case", cases(requests=1), ids=lambda case: case.name)
def test_every_case_is_answered_rightly_by_its_front(case: Case, fronts: dict[str, Front]) -> None:
    answer, size = call_once(case.wire, fronts[case.front].port, case.path, case.body, case.headers)
    case.check(answer)
    assert size in (len(answer), len(framed(answer)))


def test_an_error_is_no_answer(fronts: dict[str, Front]) -> None:
    for case in cases(requests=1):
        if case.front == "penstock":
            with pytest.raises(WrongAnswer, match=r"expected (OK|200), received"):
                call_once(case.wire, fronts["penstock"].port, case.path + "x", case.body, case.headers)


def test_another_answer_than_the_servers_is_refused() -> None:
    with pytest.raises(WrongAnswer, match="expected one row"):
        SMALL.check_json(b'{"predictions": [{"y": [0.25, 0.5, 0.125, 1.25]}]}')


def measured(name: str, us: float, *, against: str = "", target: Target | None = None, busy: float = 1.0) -> Measured:
    template = cases(requests=1)[0]
    case = Case(
        name, "plain", template.wire, template.path, b"", template.check, template.shape, against=against, target=target
    )
    return Measured(case, (Turn(us * 2, busy, 100, 0), Turn(us, busy, 100, 0)))


def test_the_page_says_what_was_met_and_by_how_much_the_rest_was_missed() -> None:
    rows = [
        measured(PLAIN, 20.0),
        measured("well", 34.0, against=PLAIN, target=Target(1.7, added_us=17)),
        measured("slow", 50.0, against=PLAIN, target=Target(1.7, added_us=17), busy=0.8),
    ]
    text = report.page(rows, report.Setting.now(command="a command", rounds=2))
    assert f"| well | 34.0 (68.0) | 100% | +14.0 | 1.70 | {PLAIN} | 17 us, 1.7x | met |" in text
    assert "| slow | 50.0 (100.0) | 80% (not saturated) | +30.0 | 2.50 |" in text
    assert "missed by 13.0 us and 0.80x" in text
    assert "600 requests, 0 failed" in text
    assert "`a command`" in text


def test_every_figure_of_scale_is_held_against_its_target() -> None:
    within = Scale(
        models=10_000,
        compile_s=9.0,
        load_s=4.0,
        resident_bytes=500_000_000,
        weight_change_s=(0.001,) * 20,
        weight_cpu_s=0.0001,
        wrong_version=0,
        one_more_s=(0.1,) * 20,
    )
    assert scale.section(within).count("| met |") == 4
    beyond = replace(within, load_s=7.5, one_more_s=(0.1,) * 10 + (0.3,) * 10)
    assert "| 7.5 s | 6 s | missed by 1.5 s |" in scale.section(beyond)
    assert "| 300.0 ms | 200 ms | missed by 100.0 ms |" in scale.section(beyond)


def test_one_slow_envoy_among_fresh_ones_shows() -> None:
    assert "| 100 | 99 | 120 | 1.20 | 1.5x | met |" in fresh.section(Fresh(us=(100.0, 99.0, 120.0), failed=0))
    assert "| 8.00 | 1.5x | missed by 6.50x |" in fresh.section(Fresh(us=(100.0, 100.0, 800.0), failed=0))


def test_a_change_among_many_models_is_measured_through_real_parts() -> None:
    cores = sorted(os.sched_getaffinity(0))
    said: list[str] = []
    measured = scale.measure_scale(
        models=20, envoy_cpu=cores[0], load_cpu=cores[-1], progress=said.append, weight_changes=4, more_models=2
    )
    assert measured.wrong_version == 0
    assert (len(measured.weight_change_s), len(measured.one_more_s)) == (4, 2)
    assert min(measured.one_more_s) > 0
    assert measured.resident_bytes > 10_000_000
