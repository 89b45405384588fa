"""`penstock predict`: ask a model, from the shell, by the JSON API that every caller can use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.text import Text

from gateway.cli.session import ExitCode, Failure, Session, checked


def add_to(app: typer.Typer) -> None:
    app.command("predict")(predict)


def predict(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="The model's name.")],
    inputs: Annotated[
        str, typer.Argument(help="JSON: one row, a list of rows, or a whole request; @FILE reads a file, - stdin.")
    ],
    version: Annotated[int | None, typer.Option(help="Ask this version, whatever the rollout says.")] = None,
    user: Annotated[str | None, typer.Option(help="Ask as this user (x-user-id).")] = None,
) -> None:
    """Ask a model for a prediction.

    Examples:

      penstock predict iris '{"X": [5.1, 3.5, 1.4, 0.2]}'

      penstock predict iris '[{"X": [5.1, 3.5, 1.4, 0.2]}, {"X": [6.2, 2.9, 4.3, 1.3]}]'

      penstock predict iris @rows.json --version 2
    """
    session: Session = ctx.obj
    body = _body(inputs)
    pinned = f"/versions/{version}" if version is not None else ""
    headers = {"content-type": "application/json", **({"x-user-id": user} if user else {})}
    with session.callers() as client:
        path = f"/v1/models/{quote(model, safe='')}{pinned}:predict"
        single = isinstance(body, dict) and "instances" not in body
        response = client.post(path, content=json.dumps({"instances": [body]} if single else body), headers=headers)
        if single and _takes_no_instances(response):
            response = client.post(path, content=json.dumps(body), headers=headers)
        answer = checked(response)
    session.show(answer, Text(json.dumps(answer, indent=2, ensure_ascii=False)))
    session.tell(
        f"version {response.headers.get('x-penstock-version', '?')}, "
        f"request id {response.headers.get('x-request-id', '?')}"
    )


def _takes_no_instances(response: httpx.Response) -> bool:
    """Whether the model refused the list of instances itself, and not something in it: it does not batch."""
    if response.status_code != 400:
        return False
    details = response.json().get("details", [])
    return any(detail.get("metadata", {}).get("field") == "instances" for detail in details)


def _body(inputs: str) -> Any:
    match inputs:
        case "-":
            text = sys.stdin.read()
        case _ if inputs.startswith("@"):
            try:
                text = Path(inputs[1:]).read_text()
            except OSError as error:
                raise Failure(f"{inputs[1:]} cannot be read: {error.strerror}", exit_code=ExitCode.USAGE) from error
        case _:
            text = inputs
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Failure(f"the inputs are not JSON: {error}", exit_code=ExitCode.USAGE) from error
    return {"instances": value} if isinstance(value, list) else value
