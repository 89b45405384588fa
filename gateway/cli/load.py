"""`penstock load`: put load on a model. The load tester is a program of its own (`python -m loadtest`); this starts it.

It stands apart because Locust patches the standard library for its greenlets, which no other command should get.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import typer

from gateway.cli.session import Failure, Session

PROGRAM = "loadtest"
NEEDS = ("locust", PROGRAM)


def add_to(app: typer.Typer) -> None:
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("load", context_settings=passed_on)(load)


def load(ctx: typer.Context) -> None:
    """Put load on a model as its callers would, and say whether it holds.

    Examples:

      penstock load iris --rate 500 --p99 50ms --errors 0.1%

      penstock load iris --scenario ramp --rate 2000

      penstock load iris --scenario canary --deploy iris-2.onnx

    All options: penstock load --help
    """
    session: Session = ctx.obj
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise Failure(
            f"the load tester needs {' and '.join(missing)}, which {sys.prefix} does not have: "
            "install it with pip install 'penstock[load]'"
        )
    if session.as_json:
        raise Failure("penstock load prints no JSON; --out DIR keeps record.json and CSV files beside the report")
    addresses = ["--gateway", session.gateway, "--server", session.server]
    # Ctrl-C reaches both; the load tester ends its run in order and this waits for it.
    with subprocess.Popen([sys.executable, "-m", PROGRAM, *addresses, *ctx.args]) as child:
        while True:
            try:
                raise typer.Exit(child.wait())
            except KeyboardInterrupt:
                continue
