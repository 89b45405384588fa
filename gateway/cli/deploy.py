"""`penstock deploy`: a model file becomes a version."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Group
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from gateway.cli.golden import GoldenFile, spec_text
from gateway.cli.session import Failure, Session, checked, json_lines
from gateway.cli.watch import expectation, finish, follow
from gateway.contract.lock_file import BadLock, lock_text, of_model, parse_lock

_CHUNK = 1024 * 1024
_SLOW_UPLOAD = 16 * _CHUNK
"""Smaller files are there before a progress bar could be read."""

RolloutFile = Annotated[
    Path | None,
    typer.Option(help="A rollout spec (YAML): steps, margins, limits.", exists=True, dir_okay=False, readable=True),
]
NoRollout = Annotated[bool, typer.Option("--no-rollout", help="Load it, but move no callers to it.")]
Wait = Annotated[bool, typer.Option("--wait", help="Watch the rollout to its end; exit 3 if rolled back.")]
NewApiMajor = Annotated[
    bool,
    typer.Option(
        "--new-api-major", help="If it breaks callers, publish it as the next API major beside the one they use."
    ),
]
ApiMajor = Annotated[
    int | None, typer.Option(min=1, help="The API major it is for; by default the newest one that it does not break.")
]

_MARKS = {"live": "green", "rollout": "green", "ready": "green", "failed": "red", "unchanged": "yellow"}


def add_to(app: typer.Typer) -> None:
    app.command("deploy")(deploy)


def deploy(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="The model file (ONNX).", exists=True, dir_okay=False, readable=True)],
    name: Annotated[str, typer.Option(help="The model's name, as callers will use it.")],
    version: Annotated[int | None, typer.Option(help="Its number; the next free one by default.")] = None,
    rollout: RolloutFile = None,
    no_rollout: NoRollout = False,
    wait: Wait = False,
    new_api_major: NewApiMajor = False,
    api_major: ApiMajor = None,
    golden: GoldenFile = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            help="A lock file (`penstock api lock`): a first version takes its names and numbers.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
) -> None:
    """Deploy a model file as a new version.

    The first version of a model answers as soon as it is proven ready. Every later one starts a rollout: callers move
    over step by step while the evidence says that it is no worse, and back when it is.

    A version never changes: the same file again is a no-op, another file under a used number is refused.

    Examples:

      penstock deploy iris.onnx --name iris

      penstock deploy iris-2.onnx --name iris --rollout careful.yaml --wait

      penstock deploy iris-3.onnx --name iris --version 3 --no-rollout

      penstock deploy iris-3.onnx --name iris --golden examples.jsonl

      penstock deploy iris-4.onnx --name iris --new-api-major

    A version that would break callers of the API is refused with every difference. With --new-api-major it is
    published as major 2 beside major 1, which goes on answering with the version it has.
    """
    session: Session = ctx.obj
    if no_rollout and (rollout is not None or golden is not None):
        raise typer.BadParameter("--no-rollout excludes --rollout and --golden")
    query: dict[str, str | int | bool] = {
        "source": path.name,
        "rollout": "none" if no_rollout else "start",
        "by": getpass.getuser(),
        "new_api_major": new_api_major,
    }
    if version is not None:
        query["version"] = version
    if api_major is not None:
        query["api_major"] = api_major
    if lock is not None:
        # Of this model alone, because it travels in the address.
        query["lock"] = lock_of(lock, name)
    # Loading a large model takes as long as it takes; the server says when it failed.
    with session.operators(timeout_s=None) as client:
        spec = spec_text(client, rollout, golden)
        if spec is not None:
            query["spec"] = spec
        request = client.build_request(
            "POST",
            f"/api/v1/models/{quote(name, safe='')}/versions",
            params=query,
            content=_upload(session, path),
            headers={"content-type": "application/octet-stream", "content-length": str(path.stat().st_size)},
        )
        follow_deployment(session, client, request, wait=wait)


def follow_deployment(session: Session, client: httpx.Client, request: httpx.Request, *, wait: bool) -> None:
    """Send what starts a deployment, show its stages, and with `wait` its rollout. Raises Failure when it failed."""
    last: Mapping[str, Any] = {}
    response = client.send(request, stream=True)
    try:
        for last in json_lines(response):
            _show_stage(session, last)
    finally:
        response.close()
    if not last:
        raise Failure(
            "Penstock closed the connection without an answer; `penstock models NAME` tells what became of it"
        )
    if last["stage"] == "failed":
        raise Failure(last["message"])
    if last["rollout"] is not None and not session.as_json:
        started = checked(client.get(f"/api/v1/rollouts/{last['rollout']}"))
        session.out.print(Group(*expectation(started)))
    if wait and last["rollout"] is not None:
        finish(session, follow(session, last["rollout"]))


def lock_of(path: Path, model: str) -> str:
    """The part of a lock file that is about one model, as a lock file. Raises Failure."""
    try:
        return lock_text(of_model(parse_lock(path.read_text(encoding="utf-8")), model))
    except (BadLock, UnicodeDecodeError) as error:
        raise Failure(f"{path}: {error}") from error


def _show_stage(session: Session, event: Mapping[str, Any]) -> None:
    style = _MARKS.get(event["stage"], "dim")
    session.show(event, Text.assemble((f"{event['stage']:>10}  ", style), event["message"]))


def _upload(session: Session, path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if not session.interactive or size < _SLOW_UPLOAD:
            while chunk := file.read(_CHUNK):
                yield chunk
            return
        columns = (TextColumn("  uploading "), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=session.err, transient=True) as progress:
            task = progress.add_task("", total=size)
            while chunk := file.read(_CHUNK):
                yield chunk
                progress.advance(task, len(chunk))
