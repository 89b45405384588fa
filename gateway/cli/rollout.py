"""`penstock rollout`: start, watch and steer the move of callers from one version to the next."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.golden import GoldenFile, spec_text
from gateway.cli.rollout_journal import plan, replay, report
from gateway.cli.session import Session, checked
from gateway.cli.watch import expectation, finish, follow, verdict, view

ModelName = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the journal.")]


def add_to(app: typer.Typer) -> None:
    commands = typer.Typer(
        no_args_is_help=True, help="Move callers from one version to the next: start, watch, steer, explain."
    )
    for command in (
        start, status, watch, pause, resume, promote, abort, undo, retry, history, explain, report, replay, plan
    ):  # fmt: skip
        commands.command(command.__name__)(command)
    app.add_typer(commands, name="rollout")


def start(
    ctx: typer.Context,
    model: ModelName,
    version: Annotated[int, typer.Argument(help="The version to move callers to.")],
    spec: Annotated[
        Path | None, typer.Option(help="A rollout spec (YAML).", exists=True, dir_okay=False, readable=True)
    ] = None,
    golden: GoldenFile = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its end; exit 3 if rolled back.")] = False,
) -> None:
    """Start moving callers to a version that is deployed.

    Without a spec it goes 10 %, 30 %, 100 %, each step on evidence. How long that is expected to take at the present
    traffic is said, with a warning where a step could not see a regression in time.

    A spec may say, for example:

      steps: [5, 25, 50, 100]

      min_step: 5m

      limits: {error_rate: 2%, latency_p99: 250ms}

    Example: penstock rollout start iris 2 --spec careful.yaml --wait
    """
    session: Session = ctx.obj
    body: dict[str, Any] = {"candidate": version, "by": getpass.getuser()}
    with session.operators() as client:
        body["spec"] = spec_text(client, spec, golden)
        started = checked(client.post(f"/api/v1/models/{quote(model, safe='')}/rollouts", json=body))
    if not wait:
        session.show(started, Group(_said(started), *expectation(started)))
        return
    if not session.as_json:
        session.out.print(Group(*expectation(started)))
    finish(session, follow(session, started["rollout_id"]))


def status(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="The model's name; all that is under way without it.")] = None,
) -> None:
    """Show where a model's rollout stands, or all that are under way.

    Example: penstock rollout status iris
    """
    session: Session = ctx.obj
    with session.operators() as client:
        if model is not None:
            answer = checked(client.get(f"/api/v1/models/{quote(model, safe='')}/rollout"))
            session.show(answer, view(answer))
        else:
            active = checked(client.get("/api/v1/rollouts"))
            session.show(active, _table(active) if active else Text("no rollout is under way"))


def watch(ctx: typer.Context, model: ModelName) -> None:
    """Watch a model's rollout until it is decided. Ctrl-C ends watching, not the rollout.

    Example: penstock rollout watch iris
    """
    session: Session = ctx.obj
    with session.operators() as client:
        current = checked(client.get(f"/api/v1/models/{quote(model, safe='')}/rollout"))
    finish(session, follow(session, current["rollout_id"]))


def pause(ctx: typer.Context, model: ModelName, reason: Reason = "") -> None:
    """Keep the weight where it is. Harm still rolls back; nothing advances.

    Example: penstock rollout pause iris --reason "sale today"
    """
    _say(ctx.obj, model, "pause", reason)


def resume(ctx: typer.Context, model: ModelName, reason: Reason = "") -> None:
    """Go on after a pause.

    Example: penstock rollout resume iris
    """
    _say(ctx.obj, model, "resume", reason)


def promote(ctx: typer.Context, model: ModelName, reason: Reason = "") -> None:
    """Make the candidate the stable version now, on your word instead of evidence.

    Example: penstock rollout promote iris --reason "tested by hand"
    """
    _say(ctx.obj, model, "promote", reason)


def abort(ctx: typer.Context, model: ModelName, reason: Reason = "") -> None:
    """Take the candidate out of traffic now.

    Example: penstock rollout abort iris --reason "wrong file"
    """
    _say(ctx.obj, model, "abort", reason)


def undo(ctx: typer.Context, model: ModelName, reason: Reason = "") -> None:
    """Move a promoted model back to its previous version, which is still loaded.

    Example: penstock rollout undo iris
    """
    _say(ctx.obj, model, "undo", reason)


def retry(ctx: typer.Context, model: ModelName, reason: Reason = "") -> None:
    """Start a rolled back, aborted or failed rollout again, by the same spec.

    Example: penstock rollout retry iris
    """
    _say(ctx.obj, model, "retry", reason)


def history(
    ctx: typer.Context,
    model: ModelName,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=1000)] = 20,
) -> None:
    """List a model's rollouts, newest first.

    Example: penstock rollout history iris
    """
    session: Session = ctx.obj
    with session.operators() as client:
        path = f"/api/v1/models/{quote(model, safe='')}/rollouts"
        answer = checked(client.get(path, params={"limit": limit}))
    session.show(answer, _table(answer) if answer else Text(f"{model} has had no rollout yet"))


def explain(
    ctx: typer.Context,
    rollout: Annotated[str, typer.Argument(help="A model's name, for its last rollout, or a rollout's number.")],
) -> None:
    """Tell what happened in a rollout and why, with the numbers behind each decision.

    Examples:

      penstock rollout explain iris

      penstock rollout explain 7
    """
    session: Session = ctx.obj
    with session.operators() as client:
        number = rollout
        if not rollout.isdigit():
            number = checked(client.get(f"/api/v1/models/{quote(rollout, safe='')}/rollout"))["rollout_id"]
        answer = checked(client.get(f"/api/v1/rollouts/{number}/explanation"))
    session.show(answer, Text("\n".join(answer["lines"])))


def _say(session: Session, model: str, verb: str, reason: str) -> None:
    with session.operators() as client:
        path = f"/api/v1/models/{quote(model, safe='')}/rollout/{verb}"
        answer = checked(client.post(path, json={"by": getpass.getuser(), "reason": reason}))
    session.show(answer, _said(answer))


def _said(status: Mapping[str, Any]) -> Text:
    move = (
        f"rollout {status['rollout_id']}: {status['model']} from version {status['stable']} to {status['candidate']}, "
    )
    return Text(move).append_text(verdict(status))


def _table(statuses: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = Table("rollout", "model", "from", "to", "state", "weight", "started", "why", box=None, header_style="bold")
    for status in statuses:
        table.add_row(
            str(status["rollout_id"]),
            status["model"],
            str(status["stable"]),
            str(status["candidate"]),
            str(status["state"]).replace("_", " "),
            f"{status['weight_bp'] / 100:g} %",
            f"{datetime.fromtimestamp(status['created_at']).astimezone():%Y-%m-%d %H:%M:%S}",
            Text(status["waiting_for"] or status["reason"]),
        )
    return table
