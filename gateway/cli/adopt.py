"""`penstock adopt`: a model that the inference server has already gets its API."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from gateway.cli.deploy import ApiMajor, NewApiMajor, NoRollout, RolloutFile, Wait, follow_deployment
from gateway.cli.session import Session


def add_to(app: typer.Typer) -> None:
    app.command("adopt")(adopt)


def adopt(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The model's name on the inference server.")],
    model: Annotated[
        str | None, typer.Option("--as", metavar="MODEL", help="The name callers will use; by default made from NAME.")
    ] = None,
    served_version: Annotated[
        str | None, typer.Option(help="The server's own version of it; by default the highest that is ready.")
    ] = None,
    rollout: RolloutFile = None,
    no_rollout: NoRollout = False,
    wait: Wait = False,
    new_api_major: NewApiMajor = False,
    api_major: ApiMajor = None,
) -> None:
    """Give an API to a model that lies in the inference server's own repository.

    The server describes it, and it becomes a version like any other: typed, documented, rolled out. Its files are not
    touched, and Penstock never unloads it. `penstock up --adopt-all` does this for every model that appears.

    Examples:

      penstock adopt resnet50

      penstock adopt Fraud_Model.v3 --as fraud --served-version 3
    """
    session: Session = ctx.obj
    if no_rollout and rollout is not None:
        raise typer.BadParameter("--rollout and --no-rollout exclude each other")
    body: dict[str, Any] = {
        "name": name,
        "version": served_version,
        "model": model,
        "rollout": "none" if no_rollout else "start",
        "spec": rollout.read_text() if rollout is not None else "",
        "by": getpass.getuser(),
        "api_major": api_major,
        "new_api_major": new_api_major,
    }
    with session.operators(timeout_s=None) as client:
        follow_deployment(session, client, client.build_request("POST", "/api/v1/adoptions", json=body), wait=wait)
