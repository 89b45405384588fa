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
        for line in model["lines"]:
            numbers = [version["number"] for version in model["versions"] if version["major"] == line["major"]]
            table.add_row(
                line["name"],
                _number(line["stable"]),
                _number(line["candidate"]),
                " ".join(map(str, numbers)),
                line["grpc"] or ("Open Inference Protocol alone" if line["obstacles"] else ""),
            )
    return table


def _model(model: Mapping[str, Any]) -> RenderableType:
    table = Table(
        "version", "API", "role", "state", "answers", "size", "digest", "deployed", box=None, header_style="bold"
    )
    for version in model["versions"]:
        role = version["role"] or ""
        table.add_row(
            str(version["number"]),
            f"v{version['major']}",
            Text(role, _ROLE_STYLE.get(role, "")),
            Text(version["state"], "red" if version["state"] == "failed" else ""),
            "yes" if version["ready"] else "no",
            f"{version['size']:,}" if version["served"] is None else "-",
            _what(version),
            f"{datetime.fromtimestamp(version['created_at']).astimezone():%Y-%m-%d %H:%M:%S}",
        )
    reasons = [
        Text(f"version {version['number']} failed: {version['reason']}", "red")
        for version in model["versions"]
        if version["state"] == "failed"
    ]
    return Group(
        *(Group(Text(line["name"], "bold"), *_api(line)) for line in model["lines"]),
        table,
        *reasons,
    )


def _api(line: Mapping[str, Any]) -> list[Text]:
    """How callers reach a line, or why not by a typed API."""
    if line["obstacles"]:
        return [Text(f"  no typed API: {why}", "yellow") for why in line["obstacles"]]
    without = "none until a version serves" if line["grpc"] is None else "none: its answers come as a stream"
    return [
        Text(f"  gRPC  {line['grpc'] or without}"),
        Text(f"  JSON  {'POST ' + line['http'] if line['http'] else without}"),
    ]


def _what(version: Mapping[str, Any]) -> str:
    """What a version is: the digest of its file, or the server's own model."""
    served = version["served"]
    return version["digest"].removeprefix("sha256:")[:12] if served is None else f"{served['name']}/{served['version']}"


def _number(version: int | None) -> str:
    return "-" if version is None else str(version)
