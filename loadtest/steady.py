"""Locustfile: steady load on one model at a constant rate, half typed JSON and half typed gRPC.

    locust -f loadtest/steady.py --headless -u 20 -r 20 --host http://127.0.0.1:8080 \\
        --model digits --examples examples.jsonl --results results.json --rate 200

Results (`loadtest.results`) are written every second and once more at the end.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import constant_throughput, events
from locust.env import Environment

from loadtest.connections import GrpcConnections
from loadtest.examples import BadExamples, read_examples
from loadtest.pace import ClosedLoop
from loadtest.protocols import Protocol
from loadtest.surface import UnknownModel, WrongExample, find_model
from loadtest.tally import Tally
from loadtest.users import GrpcUser, JsonUser, Load, PredictUser, calls_of

__all__ = ["GrpcUser", "JsonUser"]

# Before the first channel: gRPC's own threads must yield to Locust's greenlets.
grpc_gevent.init_gevent()


def add_options(parser: ArgumentParser) -> None:
    options = parser.add_argument_group("Penstock")
    options.add_argument("--model", required=True, help="name of the model to load")
    options.add_argument("--examples", type=Path, required=True, help="JSON lines of recorded examples")
    options.add_argument("--results", type=Path, required=True, help="file that receives the results every second")
    options.add_argument("--rate", type=float, default=100.0, help="predictions per second, over all users")
    options.add_argument("--callers", type=int, default=500, help="distinct x-user-id values (default 500)")
    options.add_argument("--feedback", type=float, default=1.0, help="share of answers to label, 0 to 1 (default 1)")


def prepare(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    try:
        PredictUser.load = _load(options)
    except (BadExamples, UnknownModel, WrongExample) as error:
        # Locust only logs what a listener raises, and would then run without a load.
        sys.exit(f"loadtest: {error}")
    except grpc.RpcError as error:
        sys.exit(f"loadtest: no gateway answers at {options.host}: {error.details()}")
    PredictUser.wait_time = constant_throughput(options.rate / options.num_users)
    reporter = gevent.spawn(_report, PredictUser.load.tally, options.results)
    environment.events.quit.add_listener(lambda **_: reporter.kill())


def _load(options: Any) -> Load:
    examples = read_examples(options.examples)
    with grpc.insecure_channel(options.host.removeprefix("http://")) as channel:
        api = find_model(channel, options.model)
    return Load(
        calls=calls_of(examples, (Protocol.JSON, Protocol.GRPC), typed=api, infer=None),
        examples=examples,
        tally=Tally(),
        connections=GrpcConnections(options.host.removeprefix("http://")),
        callers=options.callers,
        feedback_share=options.feedback,
        begins=time.perf_counter(),
        pace=ClosedLoop(),
    )


def _report(tally: Tally, path: Path) -> None:
    """Write the results every second until killed, then a last time."""
    started = time.monotonic()
    try:
        while True:
            gevent.sleep(1.0)
            tally.results(time.monotonic() - started).write(path)
    finally:
        tally.results(time.monotonic() - started).write(path)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(prepare)
