"""`penstock feedback`: say what the right answer was."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.session import Session, checked


def add_to(app: typer.Typer) -> None:
    app.command("feedback")(feedback)


def feedback(
    ctx: typer.Context,
    request_id: Annotated[str, typer.Argument(help="The x-request-id of the prediction's answer.")],
    label: Annotated[
        str | None, typer.Option(help="The true label: a number, a word, or a JSON list with one per row.")
    ] = None,
    reward: Annotated[float | None, typer.Option(help="How good the answer was; larger is better.")] = None,
    row: Annotated[int | None, typer.Option(help="Which row of the request, counted from 0.")] = None,
) -> None:
    """Tell Penstock the truth about a prediction; rollouts are judged by it.

    Examples:

      penstock feedback 4f1c8a90-3c1e-9d7e-a6c2-0f8d1c2b3a4d --label 3

      penstock feedback 4f1c8a90-3c1e-9d7e-a6c2-0f8d1c2b3a4d --reward 0.8
    """
    session: Session = ctx.obj
    body: dict[str, Any] = {"request_id": request_id}
    if label is not None:
        body["label"] = _label(label)
    if reward is not None:
        body["reward"] = reward
    if row is not None:
        body["row"] = row
    with session.callers() as client:
        answer = checked(client.post("/v1/feedback", json=body))
    served = f"{answer['model']} version {answer['version']}" if answer["model"] else "a prediction not logged yet"
    again = " (it was recorded before)" if answer["duplicate"] else ""
    session.show(answer, Text(f"recorded for {served}{again}"))


def _label(text: str) -> Any:
    """JSON where it is JSON ('3', 'true', '[1, 2]'), else the word itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
