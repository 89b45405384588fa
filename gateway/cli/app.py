"""The command line's root: global options, sub-commands, and how failures end the process.

Each sub-command is a module of its own that adds itself to an app; they talk to a running Penstock over its two HTTP
ports and hold no logic of their own. Exit codes: 0 done, 1 failed, 2 usage, 3 rolled back.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli import adopt, api, deploy, envoy, feedback, load, models, predict, rollout, stack
from gateway.cli.session import DEFAULT_GATEWAY, DEFAULT_SERVER, Failure, Session

_VALUED = ("--server", "--gateway")
_FLAGS = ("--json",)


class PenstockGroup(TyperGroup):
    """Takes the global options anywhere on the line, and ends failures with their exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, global_options_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            session = ctx.obj
            assert isinstance(session, Session), "the callback made it before any command ran"
            session.show_failure(failure)
            raise typer.Exit(failure.exit_code) from failure


def global_options_first(args: list[str]) -> list[str]:
    """Move `--json`, `--server URL` and `--gateway URL` to the front, so that they work after the command too."""
    front: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg == "--":
            return [*front, *rest, arg, *remaining]
        if arg in _FLAGS or arg.startswith(tuple(f"{name}=" for name in _VALUED)):
            front.append(arg)
        elif arg in _VALUED:
            front += [arg, *[value for value in [next(remaining, None)] if value is not None]]
        else:
            rest.append(arg)
    return [*front, *rest]


app = typer.Typer(
    cls=PenstockGroup,
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Serve trained models behind typed APIs, and roll out new versions on evidence.

    A first model, in three commands:

      penstock up                                       [dim]# in one terminal[/dim]

      penstock deploy iris.onnx --name iris             [dim]# in another[/dim]

      penstock predict iris '{"X": [5.1, 3.5, 1.4, 0.2]}'

    The next version of it takes over step by step, or is taken back:

      penstock deploy iris-2.onnx --name iris --wait
    """,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 rolled back. --json, --server and --gateway work anywhere "
    "on the line.",
)


@app.callback()
def options(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    server: Annotated[str, typer.Option(help="The operators' port of Penstock.", metavar="URL")] = DEFAULT_SERVER,
    gateway: Annotated[str, typer.Option(help="The callers' port of Penstock.", metavar="URL")] = DEFAULT_GATEWAY,
) -> None:
    ctx.obj = Session(as_json=json, server=server, gateway=gateway)


stack.add_to(app)
deploy.add_to(app)
adopt.add_to(app)
models.add_to(app)
predict.add_to(app)
api.add_to(app)
rollout.add_to(app)
feedback.add_to(app)
load.add_to(app)
envoy.add_to(app)
