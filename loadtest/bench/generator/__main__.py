"""Command line of the generator's bench: `python -m loadtest.bench.generator`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.stack.envoy import EnvoyUnavailable
from loadtest.bench.gateway.calls import SMALL
from loadtest.bench.gateway.fronts import answering, envoy, free_settings, stub
from loadtest.bench.gateway.load import ToolMissing
from loadtest.bench.generator.sent import Sent
from loadtest.demo.children import ChildFailed
from loadtest.protocols import Protocol


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.generator", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="turns of each protocol, of which the best counts (3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (4)")
    parser.add_argument("--users", type=int, default=32, help="users, each with a request in flight (32)")
    options = parser.parse_args(arguments)
    try:
        sent = run(turns=options.turns, seconds=options.seconds, users=options.users)
    except (ChildFailed, EnvoyUnavailable, ToolMissing) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(table(sent))
    return 1 if any(one.failed for turns in sent.values() for one in turns) else 0


def run(*, turns: int, seconds: float, users: int) -> Mapping[Protocol, Sequence[Sent]]:
    """Every protocol in turn, so that a busy spell of the machine meets them all."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ToolMissing("this bench needs two cores: one for the generator, one for the server")
    sent: dict[Protocol, list[Sent]] = {protocol: [] for protocol in Protocol}
    with servers(cores[1]) as ports:
        for _ in range(turns):
            for protocol in Protocol:
                told = [protocol, str(ports[protocol]), str(users), str(seconds)]
                command = ["taskset", "-c", str(cores[0]), sys.executable, "-m", "loadtest.bench.generator.send", *told]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise ChildFailed(f"{protocol}: {done.stderr.strip()[-500:]}")
                sent[protocol].append(Sent(**json.loads(done.stdout)))
    return sent


@contextmanager
def servers(cpu: int) -> Iterator[Mapping[Protocol, int]]:
    """The bench's stub for gRPC; for HTTP an Envoy that answers by itself. Ports by protocol."""
    y = SMALL.y.tolist()
    output = {"name": "y", "datatype": "FP32", "shape": [1, len(y)], "data": y}
    answers = {
        SMALL.contract.predict_http_path: json.dumps({"predictions": [{"y": y}]}),
        f"/v2/models/{SMALL.name}/infer": json.dumps({"model_name": SMALL.name, "outputs": [output]}),
    }
    with tempfile.TemporaryDirectory(prefix="bench-generator-") as folder, stub(Path(folder), (SMALL,), cpu) as stubs:
        settings = free_settings()
        config = json.dumps(answering(answers, settings))
        with envoy(Path(folder) / "http.json", config, settings, cpu) as front:
            yield {
                Protocol.JSON: front.port,
                Protocol.GRPC: stubs[SMALL.name].typed,
                Protocol.INFER_HTTP: front.port,
                Protocol.INFER_GRPC: stubs[SMALL.name].infer,
            }


def table(sent: Mapping[Protocol, Sequence[Sent]]) -> str:
    lines = ["| | requests/s | CPU of the sending thread, us | CPU of the process, us |", "|---|---|---|---|"]
    for protocol, turns in sent.items():
        best = max(turns, key=lambda one: one.requests / one.seconds)
        thread, process = (1e6 * cpu / best.requests for cpu in (best.thread_s, best.process_s))
        lines.append(f"| `{protocol}` | {best.requests / best.seconds:,.0f} | {thread:,.0f} | {process:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
