"""One process that sends by one protocol for some seconds and prints what that took: JSON of a `Sent`.

Started by `loadtest.bench.generator`: `python -m loadtest.bench.generator.send PROTOCOL PORT USERS SECONDS`. Users,
connections and counts are those of `penstock load`; only the gateway's documents, which the servers do not have, are
replaced by the bench's own model.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

import gevent
import grpc.experimental.gevent as grpc_gevent
import locust  # noqa: F401  # before everything that opens a socket: it patches the standard library
from locust.env import Environment
from tritonclient.grpc import service_pb2 as oip

from gateway.contract.descriptor import message_classes
from loadtest.bench.gateway.calls import SMALL
from loadtest.bench.generator.sent import Sent
from loadtest.connections import GrpcConnections
from loadtest.examples import Example
from loadtest.inputs import Tensor
from loadtest.pace import ClosedLoop
from loadtest.protocols import Protocol
from loadtest.surface import InferApi, TypedApi
from loadtest.tally import Tally
from loadtest.users import USERS, Load, PredictUser, calls_of

_LEAD_S = 1.0


def send(protocol: Protocol, port: int, *, users: int, seconds: float) -> Sent:
    """Ask the server on this port for so long, each user as soon as it has its answer."""
    contract, oip_messages = SMALL.contract, (oip.ModelInferRequest.DESCRIPTOR, oip.ModelInferResponse.DESCRIPTOR)
    messages: Any = message_classes(contract)
    request, response = messages.request.DESCRIPTOR, messages.response.DESCRIPTOR
    typed = TypedApi(SMALL.name, contract.predict_grpc_path, contract.predict_http_path, request, response)
    infer = InferApi(SMALL.name, (Tensor("x", "FP32", (-1, *SMALL.x.shape)),), True, *oip_messages)
    examples = (Example({"x": SMALL.x.tolist()}, None),)  # the one that the stub takes
    begins = time.perf_counter() + _LEAD_S
    tally = Tally()
    PredictUser.load = Load(
        calls=calls_of(examples, [protocol], typed=typed, infer=infer),
        examples=examples,
        tally=tally,
        connections=GrpcConnections(f"127.0.0.1:{port}"),
        callers=500,
        feedback_share=0.0,
        begins=begins,
        pace=ClosedLoop(begins=begins, ends=begins + seconds),
    )
    environment = Environment(
        user_classes=[USERS[protocol]], host=f"http://127.0.0.1:{port}", catch_exceptions=False, stop_timeout=10
    )
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=users)
    gevent.sleep(max(0.0, begins - time.perf_counter()))
    thread_s, process_s = time.thread_time(), time.process_time()
    gevent.sleep(max(0.0, begins + seconds - time.perf_counter()))
    thread_s, process_s = time.thread_time() - thread_s, time.process_time() - process_s
    while runner.user_count:
        gevent.sleep(0.05)
    runner.quit()
    cells = tally.cells.values()
    return Sent(sum(cell.requests for cell in cells), sum(cell.failed for cell in cells), seconds, thread_s, process_s)


if __name__ == "__main__":
    grpc_gevent.init_gevent()
    name, number, count, duration = sys.argv[1:]
    print(json.dumps(asdict(send(Protocol(name), int(number), users=int(count), seconds=float(duration)))))
