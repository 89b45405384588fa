"""The bench against peers asks what it says, sees every process of a peer, and tells plainly who is cheaper."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.bench.gateway.calls import LARGE, SMALL, Wire, WrongAnswer, call_once
from loadtest.bench.gateway.fronts import stub
from loadtest.bench.peers.measure import Figures, Latency
from loadtest.bench.peers.peers import Peer, Place, Running, peers
from loadtest.bench.peers.report import chart, page
from loadtest.bench.peers.results import Result, Row, Store
from loadtest.bench.peers.tree import MARK, Tree
from loadtest.bench.peers.work import Form, Size, Work, infer_binary, infer_json, plain_json

HERE = ("Penstock", "Envoy, plain", "grpc.aio pass-through", "FastAPI + tritonclient")
"""Peers that need nothing but this environment."""


@pytest.mark.parametrize("peer", [p for p in peers() if p.name in HERE], ids=lambda peer: peer.name)
def test_a_peer_answers_everything_that_is_asked_of_it(peer: Peer, tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with stub(tmp_path, (SMALL, LARGE), cores[-1]) as stubs:
        place = Place(tmp_path, cores[0], stubs, lambda line: None)
        with peer.start(place) as running:
            for work in peer.works:
                work.check(answer_of(work, running))


def answer_of(work: Work, running: Running) -> bytes:
    """The first answer; a peer that is still starting gives none."""
    while True:
        try:
            return call_once(work.wire, running.of(work), work.path, work.body, work.all_headers)[0]
        except WrongAnswer as error:
            if "no answer" not in str(error) and "UNAVAILABLE" not in str(error):
                raise


def test_answers_that_differ_are_refused() -> None:
    good = json.dumps({"outputs": [{"name": "y", "shape": [1, 4], "datatype": "FP32", "data": SMALL.y.tolist()}]})
    infer_json(Size.SMALL).check(good.encode())
    plain_json(Size.SMALL, "/").check(json.dumps({"y": SMALL.y.tolist()}).encode())
    infer_binary(Size.BINARY).check(b"{}" + LARGE.y.tobytes())
    for work, answer in (
        (infer_json(Size.SMALL), good.replace("0.25", "0.75").encode()),
        (plain_json(Size.SMALL, "/"), b'{"y": [0.25, 0.5, 0.125]}'),
        (infer_binary(Size.BINARY), b"{}" + (LARGE.y + 1).tobytes()),
    ):
        with pytest.raises(WrongAnswer, match="expected"):
            work.check(answer)


_FAMILY = """
import os, subprocess, sys, time
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
print(os.getpid(), flush=True)  # from here on its environment can be read
time.sleep(60)
"""


def test_a_process_that_left_its_session_is_seen_and_ended(tmp_path: Path) -> None:
    script = tmp_path / "family.py"
    script.write_text(_FAMILY)
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pids = {int(parent.stdout.readline()) for _ in range(2)}
        assert set(Tree(mark, 0).pids()) == pids, "by the mark"
        assert set(Tree("no such mark", parent.pid).pids()) == pids, "by descent"
        assert Tree(mark, parent.pid).memory_bytes() > 1_000_000
        Tree(mark, parent.pid).end()
        parent.wait()
    assert not Tree(mark, 0).pids()


def result(name: str, us: float, form: Form = Form.TYPED_GRPC) -> Result:
    figures = Figures(us, Latency(0.1, 0.2), Latency(1.0, 2.0), 1000.0, 100, 0)
    wire = Wire.GRPC if form in (Form.TYPED_GRPC, Form.INFER_GRPC) else Wire.JSON_H1
    return Result(name, "1.0", False, 1.5, 10_000_000, (Row(form, wire, Size.SMALL, figures),))


def test_the_page_says_what_was_reached_and_who_is_cheaper(tmp_path: Path) -> None:
    ours, envoy, kserve = result("Penstock", 100.0), result("Envoy, plain", 40.0), result("KServe", 450.0)
    text = page([ours, envoy, kserve], "the command")
    assert "KServe with 450 us, **4.5 times** as much (goal: at least 4; met)" in text
    assert "4 floats, gRPC: Envoy, plain (typed gRPC) needs 0.40 of Penstock's CPU." in text
    missed = page([ours, result("KServe", 250.0)], "the command")
    assert "**2.5 times** as much (goal: at least 4; missed)" in missed
    assert "Nowhere in this run." in missed
    broken = replace(kserve, rows=(Row(Form.INFER_JSON, Wire.JSON_H1, Size.SMALL, None, "no answer"),))
    assert "| KServe | Open Inference JSON, HTTP/1.1 | did not work: no answer | | |" in page(
        [ours, broken], "a command"
    )
    chart([ours, envoy, kserve], tmp_path / "chart.svg")
    assert "KServe" in (tmp_path / "chart.svg").read_text(encoding="utf-8")


def test_typed_json_is_judged_over_the_protocol_that_the_python_fronts_speak() -> None:
    fastapi, h1 = result("FastAPI + tritonclient", 300.0, Form.TYPED_JSON), result("Penstock", 150.0, Form.TYPED_JSON)
    (row,) = h1.rows
    assert row.figures
    over_h2 = replace(row, wire=Wire.JSON_H2, figures=replace(row.figures, cpu_us=75.0))
    text = page([replace(h1, rows=(row, over_h2)), fastapi], "a command")
    assert (
        "typed JSON over HTTP/1.1, 4 floats: 150 us; the cheapest front in Python is FastAPI + tritonclient with"
        in text
    )
    assert "**2.0 times** as much (goal: at least 3; missed)" in text
    assert "typed JSON over HTTP/2, 4 floats: 75 us, so **4.0 times**" in text
    assert "| Penstock | typed JSON, HTTP/1.1 | 150 |" in text
    assert "| Penstock | typed JSON, HTTP/2 | 75 |" in text
    cheap = page([replace(h1, rows=(row, over_h2)), result("KServe", 100.0, Form.TYPED_JSON)], "a command")
    assert "4 floats, HTTP/1.1: KServe (typed JSON, HTTP/1.1) needs 0.67 of Penstock's CPU." in cheap


def test_what_was_measured_before_is_kept_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "measured.jsonl", "one commit")
    whole = result("KServe", 450.0, Form.TYPED_JSON)
    broken = Result("MLServer", "1", True, trouble="it ended")
    for one in (whole, broken):
        store.add(one)
    assert store.read() == {"KServe": whole}, "what did not work is tried again"
    assert Store(tmp_path / "measured.jsonl", "another commit").read() == {}, "figures of other code are not taken"
    with store.path.open("a", encoding="utf-8") as file:
        file.write('{"name": "cut off')
    assert store.read() == {"KServe": whole}
