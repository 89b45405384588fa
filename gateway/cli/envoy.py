"""`penstock envoy`: the configuration that Penstock gives Envoy."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.session import Session, refused


def add_to(app: typer.Typer) -> None:
    app.command("envoy")(envoy)


def envoy(
    ctx: typer.Context,
    static: Annotated[
        bool, typer.Option("--static", help="For an Envoy without a control plane: its own endpoints are left out.")
    ] = False,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="What the embedded Envoy is started with; it takes the rest by ADS.")
    ] = False,
) -> None:
    """Print the compiled Envoy configuration as YAML: all models, routes and weights as they are now, in one file.

    Examples:

      penstock envoy --static > envoy.yaml

      envoy --mode validate -c envoy.yaml
    """
    if static and bootstrap:
        raise typer.BadParameter("choose one of --static and --bootstrap")
    form = "static" if static else "bootstrap" if bootstrap else "compiled"
    session: Session = ctx.obj
    with session.operators() as client:
        response = client.get("/api/v1/envoy", params={"form": form})
    if not response.is_success:
        raise refused(response)
    if session.as_json:
        session.print_json({"yaml": response.text})
    else:
        typer.echo(response.text, nl=False)
