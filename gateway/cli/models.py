"""`penstock models`: what is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.session import Session, checked

_ROLE_STYLE = {"stable": "green", "candidate": "yellow", "previous": "cyan"}


def add_to(app: typer.Typer) -> None:
    app.command("models")(models)


def models(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="One model, with its API and its versions.")] = ""
) -> None:
    """Show what is deployed, and which version answers.

    Examples:

      penstock models

      penstock models iris
    """
    if name:
        show_model(ctx, name)
    else:
        list_models(ctx)


def list_models(ctx: typer.Context) -> None:
    session: Session = ctx.obj
    with session.operators() as client:
        answer = checked(client.get("/api/v1/models"))
    session.show(answer, _list(answer["models"]))


def show_model(ctx: typer.Context, name: str) -> None:
    session: Session = ctx.obj
    with session.operators() as client:
        answer = checked(client.get(f"/api/v1/models/{name}"))
    session.show(answer, _model(answer))


def _list(models: list[Mapping[str, Any]]) -> RenderableType:
    if not models:
        return Text("no models yet: penstock deploy model.onnx --name NAME adds one")
    table = Table("model", "stable", "candidate", "versions", "gRPC", box=None, header_style="bold")
    for model in models:
        table.add_row(
            model["name"],
            _number(model["stable"]),
            _number(model["candidate"]),
            " ".join(str(version["number"]) for version in model["versions"]),
            model["grpc"] or "",
        )
    return table


def _model(model: Mapping[str, Any]) -> RenderableType:
    table = Table("version", "role", "state", "answers", "size", "digest", "deployed", box=None, header_style="bold")
    for version in model["versions"]:
        role = version["role"] or ""
        table.add_row(
            str(version["number"]),
            Text(role, _ROLE_STYLE.get(role, "")),
            Text(version["state"], "red" if version["state"] == "failed" else ""),
            "yes" if version["ready"] else "no",
            f"{version['size']:,}",
            version["digest"].removeprefix("sha256:")[:12],
            f"{datetime.fromtimestamp(version['created_at']).astimezone():%Y-%m-%d %H:%M:%S}",
        )
    reasons = [
        Text(f"version {version['number']} failed: {version['reason']}", "red")
        for version in model["versions"]
        if version["state"] == "failed"
    ]
    return Group(
        Text(model["name"], "bold"),
        Text(f"  gRPC  {model['grpc'] or 'none until a version serves'}"),
        Text(f"  JSON  {'POST ' + model['http'] if model['http'] else 'none until a version serves'}"),
        table,
        *reasons,
    )


def _number(version: int | None) -> str:
    return "-" if version is None else str(version)
