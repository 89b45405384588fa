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
        bool, typer.Option("--static", help="Everything in one file, to run without the control plane.")
    ] = False,
) -> None:
    """Print the Envoy configuration as YAML.

    Without --static it is the bootstrap of an Envoy that takes models and weights from the control plane.

    Examples:

      penstock envoy --static > envoy.yaml

      envoy --mode validate -c envoy.yaml
    """
    session: Session = ctx.obj
    with session.operators() as client:
        response = client.get("/api/v1/envoy", params={"static": str(static).lower()})
    if not response.is_success:
        raise refused(response)
    if session.as_json:
        session.print_json({"yaml": response.text})
    else:
        typer.echo(response.text, nl=False)
