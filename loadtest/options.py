"""The command line of `penstock load` (`python -m loadtest`): every option, its unit and its default."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.objectives import PERCENTILES, BadObjective, Objectives, parse_duration_s, parse_share
from loadtest.plan import DEFAULT_CLOSED_USERS, DEFAULT_GATEWAY, DEFAULT_RATE, DEFAULT_SERVER, Plan
from loadtest.protocols import Protocol
from loadtest.scenarios import Scenario

DEFAULT_MASTER_PORT = 5557

EXAMPLES = """\
examples:
  penstock load digits                                    100 requests/s for a minute, made from the contract
  penstock load digits --rate 500 --p99 50ms --errors 0.1%   exit status 1 when it does not hold
  penstock load digits --scenario ramp --rate 2000        find the knee below 2,000/s
  penstock load digits --scenario canary --deploy digits-2.onnx   a rollout under load; no request may be lost
  penstock load digits --inputs examples.jsonl --feedback 50%     recorded inputs, half of the labels sent back
  penstock load digits --closed --users 32 --protocol grpc        as many as 32 callers get
  penstock load digits --workers 2                        from two processes

exit status: 0 objectives met, 1 not met or a request lost, 2 wrong usage or nothing to test
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The plan, and where this process stands: what is written where, and which other processes take part."""

    plan: Plan
    allow_remote: bool
    out: Path | None
    web: int | None
    workers: int
    remote_workers: int
    worker: bool
    master_host: str
    master_port: int
    bind: str
    quiet: bool


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="penstock load",
        description="Put load on one model, as its callers would, and say whether it holds.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("model", nargs="?", metavar="NAME", help="the model's name")
    root.add_argument("--gateway", metavar="URL", default=DEFAULT_GATEWAY, help=f"callers' port ({DEFAULT_GATEWAY})")
    root.add_argument("--server", metavar="URL", default=DEFAULT_SERVER, help=f"operators' port ({DEFAULT_SERVER})")
    root.add_argument("--allow-remote", action="store_true", help="allow addresses that are not this machine")

    load = root.add_argument_group("load")
    load.add_argument(
        "--scenario",
        type=Scenario,
        choices=list(Scenario),
        default=Scenario.STEADY,
        metavar="SCENARIO",
        help="steady (default), ramp, spike, soak, canary",
    )
    load.add_argument(
        "--rate",
        type=_rate,
        default=DEFAULT_RATE,
        metavar="N",
        help=f"requests per second, whether or not earlier ones are answered ({DEFAULT_RATE:g})",
    )
    load.add_argument(
        "--duration", type=_duration, metavar="TIME", help="30s, 10m, 2h (60s; soak 1h; canary at most 10m)"
    )
    load.add_argument(
        "--closed", action="store_true", help="closed loop: each user waits for its answer, then asks again"
    )
    load.add_argument(
        "--users",
        type=_count,
        default=0,
        metavar="N",
        help=f"users (closed loop: {DEFAULT_CLOSED_USERS}; open loop: as many as the rate needs)",
    )
    load.add_argument(
        "--protocol",
        type=_protocols,
        default=(),
        metavar="P[,P]",
        help=f"{', '.join(Protocol)} (json,grpc; oip-grpc for a model without a typed API)",
    )
    load.add_argument("--version", type=_count, metavar="N", help="ask this version, whatever the rollout says")
    load.add_argument("--callers", type=_count, default=500, metavar="N", help="distinct x-user-id values (500)")

    inputs = root.add_argument_group("inputs")
    inputs.add_argument(
        "--inputs",
        default="",
        metavar="FILE",
        help='JSON lines {"instance": {...}, "label": ...}, or a golden set; else random by the contract',
    )
    inputs.add_argument(
        "--range",
        type=_range,
        default=(0.0, None),
        metavar="LOW:HIGH",
        help="random numbers lie in it (0:1, whole numbers 0:9; never beyond the contract's bounds)",
    )
    inputs.add_argument("--seed", type=int, default=1, metavar="N", help="of the random inputs (1)")
    inputs.add_argument(
        "--feedback",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="share of the labels in --inputs that are sent back (100%%)",
    )

    canary = root.add_argument_group("canary")
    canary.add_argument("--deploy", default="", metavar="FILE", help="the next version's model file")
    canary.add_argument("--candidate", type=_count, metavar="N", help="a version that is loaded already")
    canary.add_argument("--rollout", default="", metavar="SPEC", help="rollout spec (YAML); else Penstock's defaults")

    objectives = root.add_argument_group("objectives")
    for percentile in PERCENTILES:
        objectives.add_argument(
            f"--p{percentile:g}",
            type=_duration,
            metavar="TIME",
            dest=f"p{percentile:g}",
            help=f"{percentile:g} of 100 answers come within this time, from the intended start",
        )
    objectives.add_argument(
        "--errors", type=_share, metavar="SHARE", help="at most this share of requests fails (0.1%%)"
    )

    places = root.add_argument_group("report and processes")
    places.add_argument("--out", type=Path, metavar="DIR", help="folder of report.html and the CSV (load-NAME-TIME)")
    places.add_argument("--web", type=int, metavar="PORT", help="show Locust's web page on this port of 127.0.0.1")
    places.add_argument("--workers", type=_count, default=0, metavar="N", help="send from N processes of this machine")
    places.add_argument(
        "--remote-workers", type=_count, default=0, metavar="N", help="wait for N workers elsewhere, too"
    )
    places.add_argument("--bind", default="127.0.0.1", metavar="HOST", help="where workers connect to (127.0.0.1)")
    places.add_argument("--worker", action="store_true", help="be a worker; everything else comes from the master")
    places.add_argument("--master-host", default="127.0.0.1", metavar="HOST", help="of a worker: where the master is")
    places.add_argument(
        "--master-port",
        type=int,
        default=DEFAULT_MASTER_PORT,
        metavar="PORT",
        help=f"port of the master ({DEFAULT_MASTER_PORT}; with --workers alone a free one)",
    )
    places.add_argument("--quiet", action="store_true", help="no line a second while it runs")
    return root


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Ends the process with status 2 and a message when the options are wrong."""
    root = parser()
    given = root.parse_args(arguments)
    if given.model is None and not given.worker:
        root.error("the model's name is missing: penstock load NAME")
    limits = {p: seconds * 1000 for p in PERCENTILES if (seconds := getattr(given, f"p{p:g}")) is not None}
    scenario: Scenario = given.scenario
    plan = Plan(
        model=given.model or "",
        gateway=given.gateway.rstrip("/"),
        server=given.server.rstrip("/"),
        scenario=scenario,
        protocols=given.protocol,
        closed=given.closed,
        rate=given.rate,
        users=given.users,
        seconds=given.duration or scenario.default_seconds,
        inputs=given.inputs,
        low=given.range[0],
        high=given.range[1],
        seed=given.seed,
        feedback=given.feedback,
        callers=given.callers,
        version=given.version,
        deploy=given.deploy,
        candidate=given.candidate,
        rollout_spec=given.rollout,
        objectives=Objectives(limits, given.errors, 0 if scenario is Scenario.CANARY else None),
    )
    return Options(
        plan=plan,
        allow_remote=given.allow_remote,
        out=given.out,
        web=given.web,
        workers=given.workers,
        remote_workers=given.remote_workers,
        worker=given.worker,
        master_host=given.master_host,
        master_port=given.master_port,
        bind=given.bind,
        quiet=given.quiet,
    )


def _duration(text: str) -> float:
    return _read(parse_duration_s, text)


def _share(text: str) -> float:
    return _read(parse_share, text)


def _read(parse_one: Callable[[str], float], text: str) -> float:
    try:
        return parse_one(text)
    except BadObjective as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"expected requests per second above 0, such as 200, received {text!r}")
    return rate


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, received {text!r}")
    return int(text)


def _protocols(text: str) -> tuple[Protocol, ...]:
    try:
        return tuple(dict.fromkeys(Protocol(name.strip()) for name in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(Protocol)}, received {text!r}") from error


def _range(text: str) -> tuple[float, float]:
    low, separator, high = text.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected LOW:HIGH, such as 0:255, received {text!r}") from error
    if not separator or not bounds[0] <= bounds[1]:
        raise argparse.ArgumentTypeError(f"expected LOW:HIGH with LOW <= HIGH, received {text!r}")
    return bounds
