"""Golden sets on their way to the server: uploaded first, and named in the rollout spec by their digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml

from gateway.cli.session import Failure, checked

GoldenFile = Annotated[
    Path | None,
    typer.Option(
        "--golden",
        help="Labelled examples (JSON lines, or .npz): no user sees a candidate that is more than 1 % worse on them "
        "than stable, or what the spec says of `golden`.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]

_DEFAULT: dict[str, Any] = {"max_drop": "1%"}


def spec_text(client: httpx.Client, spec: Path | None, golden: Path | None) -> str | None:
    """The spec to send, its golden set uploaded; None for neither. A file in the spec is relative to the spec.

    Raises Failure, for a bad spec with the line.
    """
    if spec is None and golden is None:
        return None
    text = spec.read_text() if spec is not None else ""
    if spec is not None:
        # Here, because it costs a quarter of a second; and before anything is sent.
        from rollout.spec_file import SpecError, parse_spec

        try:
            parse_spec(text)
        except SpecError as error:
            raise Failure(f"{spec}: {error}") from error
    value = yaml.safe_load(text) or {}
    section = dict(value.get("golden") or ({} if golden is None else _DEFAULT))
    if golden is None:
        if not section or str(section["file"]).startswith("sha256:"):
            return text
        assert spec is not None
        golden = spec.parent / section["file"]
    return json.dumps({**value, "golden": {**section, "file": upload_golden(client, golden)}})


def upload_golden(client: httpx.Client, path: Path) -> str:
    """The digest under which the server keeps the file. Raises Failure with the server's words."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"the golden set {path} cannot be read: {error}") from error
    stored = checked(client.put("/api/v1/golden", content=content, timeout=120.0))
    return str(stored["digest"])
