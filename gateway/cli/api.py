"""`penstock api`: the generated API of a model, as files for other tools."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer
from rich.text import Text

from gateway.cli.session import Session, checked, refused


def add_to(app: typer.Typer) -> None:
    commands = typer.Typer(no_args_is_help=True, help="The generated API of a model: .proto and OpenAPI.")
    commands.command("proto")(proto)
    commands.command("openapi")(openapi)
    app.add_typer(commands, name="api")


def proto(ctx: typer.Context, model: Annotated[str, typer.Argument(help="The model's name.")]) -> None:
    """Print the model's .proto file.

    Example: penstock api proto iris > iris.proto
    """
    session: Session = ctx.obj
    with session.callers() as client:
        response = client.get(f"/v1/models/{quote(model, safe='')}.proto")
    if not response.is_success:
        raise refused(response)
    session.show({"model": model, "proto": response.text}, Text(response.text.rstrip("\n")))


def openapi(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="The model's name; all models without it.")] = None,
) -> None:
    """Print the OpenAPI 3.1 document of a model, or of all.

    Example: penstock api openapi iris > iris.json
    """
    session: Session = ctx.obj
    path = "/openapi.json" if model is None else f"/v1/models/{quote(model, safe='')}/openapi.json"
    with session.callers() as client:
        session.print_json(checked(client.get(path)))
