"""`penstock api lock` and `api check`: the contracts that callers rely on, as a file, and whether they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from gateway.cli.session import ExitCode, Failure, Session, refused
from gateway.contract.compare import Change, Outcome, Verdict
from gateway.contract.lines import Line
from gateway.contract.lock_file import BadLock, compare_contracts, of_model, parse_lock
from gateway.contract.majors import BreakingChange, join
from gateway.contract.model import Contract

_LOCK_FILES = ("*.yaml", "*.yml", "*.json")


def add_to(commands: typer.Typer) -> None:
    commands.command("lock")(lock)
    commands.command("check")(check)


def lock(
    ctx: typer.Context,
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="All models without it.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")] = None,
) -> None:
    """Write the lock file: the field names, numbers, datatypes and shapes that callers of the models rely on.

    Commit it. It changes only when an API does, so its diff is the API's diff. `penstock api check` compares it.

    Examples:

      penstock api lock -o penstock.lock.yaml

      penstock api lock iris digits > lock.yaml
    """
    session: Session = ctx.obj
    text = _served_lock(session, models or ())
    if output is None:
        # As a file, also for programs: this is what `check` reads.
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    locked = [Line(c.model, c.major).name for c in parse_lock(text)]
    session.show({"file": str(output), "locked": locked}, Text(f"{output}: {', '.join(locked) or 'no model'}"))


def check(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A lock file, or a folder of them.", exists=True)],
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check this model file before it is deployed; asks no gateway.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The model that the ONNX file is for, where the lock has several.")] = "",
) -> None:
    """Check that callers who rely on the lock are not broken; exit 1 with every difference if they are.

    Without --onnx it compares the lock with what the gateway serves. With it, the lock is compared with a model file,
    as a deployment would, and nothing else is needed: use it before a release, or in a pull request.

    Examples:

      penstock api check penstock.lock.yaml

      penstock api check penstock.lock.yaml --onnx iris-2.onnx --name iris
    """
    session: Session = ctx.obj
    locked = _read(path)
    verdicts = _of_served(session, locked) if onnx is None else _of_file(locked, onnx, name)
    broken = [line for line, verdict in verdicts if verdict.outcome is Outcome.BREAKING]
    session.show([_json(line, verdict) for line, verdict in verdicts], Group(*(_shown(*each) for each in verdicts)))
    if broken and (onnx is None or len(broken) == len(verdicts)):
        raise typer.Exit(ExitCode.FAILED)


def _served_lock(session: Session, models: Sequence[str]) -> str:
    with session.operators() as client:
        response = client.get("/api/v1/lock", params={"model": list(models)})
        if not response.is_success:
            raise refused(response)
        return response.text


def _read(path: Path) -> tuple[Contract, ...]:
    files = sorted(f for pattern in _LOCK_FILES for f in path.glob(pattern)) if path.is_dir() else [path]
    found: dict[Line, Contract] = {}
    for file in files:
        try:
            contracts = parse_lock(file.read_text(encoding="utf-8"))
        except (BadLock, UnicodeDecodeError) as error:
            raise Failure(f"{file}: {error}") from error
        for contract in contracts:
            line = Line(contract.model, contract.major)
            if line in found:
                raise Failure(f"{file}: {line.name} is in another lock file of the folder already")
            found[line] = contract
    if not found:
        raise Failure(f"{path}: no locked model; `penstock api lock -o FILE` writes a lock file")
    return tuple(found.values())


def _of_served(session: Session, locked: Sequence[Contract]) -> list[tuple[str, Verdict]]:
    served = {Line(c.model, c.major): c for c in parse_lock(_served_lock(session, ()))}
    verdicts = []
    for contract in locked:
        line = Line(contract.model, contract.major)
        if line in served:
            verdict = compare_contracts(contract, served[line])
        else:
            verdict = Verdict(contract.full_service, (Change(line.name, "is not served; callers use it", True),))
        verdicts.append((line.name, verdict))
    return verdicts


def _of_file(locked: Sequence[Contract], onnx: Path, name: str) -> list[tuple[str, Verdict]]:
    """The verdicts of the majors in the order a deployment asks them, ending with the one that the file joins."""
    models = sorted({contract.model for contract in locked})
    if not name and len(models) > 1:
        raise Failure(f"the lock has several models ({', '.join(models)}): say which the file is for with --name")
    # Here, because it costs a second that the other commands need not pay.
    from adapters.onnx.describe import describe
    from adapters.server import BadArtefact
    from gateway.contract.compare import compare

    try:
        mine = of_model(locked, name or models[0])
        signature = asyncio.run(describe(onnx))
    except (BadLock, BadArtefact) as error:
        raise Failure(str(error)) from error
    try:
        joined = join(mine[0].model, signature, mine).contract.major
    except BreakingChange:
        joined = 0
    newest_first = sorted(mine, key=lambda c: c.major, reverse=True)
    return [(Line(c.model, c.major).name, compare(c, signature)) for c in newest_first if c.major >= joined]


def _json(line: str, verdict: Verdict) -> dict[str, Any]:
    changes = [{"field": c.field, "what": c.what, "breaking": c.breaking} for c in verdict.changes]
    return {"line": line, "api": verdict.api, "outcome": verdict.outcome.value, "changes": changes}


def _shown(line: str, verdict: Verdict) -> Text:
    styles = {Outcome.IDENTICAL: "green", Outcome.COMPATIBLE: "green", Outcome.BREAKING: "red"}
    shown = Text.assemble((f"{verdict.outcome.value:>10}  ", styles[verdict.outcome]), line)
    for change in verdict.changes:
        shown.append(f"\n            {'breaks' if change.breaking else 'allowed'}  {change}")
    return shown
