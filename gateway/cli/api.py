"""`penstock api`: the generated API of a model, as files for other tools and as ready client projects.

The gateway writes the files (`gateway.codegen`); this fetches them, unpacks them, and runs the one generator that may
be installed beside the command line, grpcio-tools.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text
from typer.core import TyperGroup

from gateway.cli import api_lock
from gateway.cli.session import ExitCode, Failure, Session, checked, refused
from gateway.codegen.formats import Format
from gateway.contract.lines import BadLineName, Line

_DEFAULT = "export"


class ApiGroup(TyperGroup):
    """`penstock api iris --format go` is `penstock api export iris --format go`: what is no command is a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # --help and nothing at all are about the group; `--format openapi` alone is an export of all models.
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    commands = typer.Typer(
        cls=ApiGroup,
        no_args_is_help=True,
        help="""The generated API of a model: documents, and client projects in many languages.

        penstock api iris --format proto                  [dim]# print one document[/dim]

        penstock api iris --format kotlin -o iris-kotlin  [dim]# write a project[/dim]
        """,
    )
    commands.command(_DEFAULT)(export)
    api_lock.add_to(commands)
    app.add_typer(commands, name="api")


def export(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A model (iris@2: its API major 2); without it, for openapi, all.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.PROTO,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to write; without it, print.")
    ] = None,
) -> None:
    """Write the API of a model: a document (proto, openapi, descriptor, curl) or a client project (the others).

    The word "export" may be left out, unless the model is called like a command.

    Examples:

      penstock api iris --format proto > iris.proto

      penstock api export iris --format cpp -o iris-cpp

      penstock api iris@2 --format typescript -o iris-v2
    """
    session: Session = ctx.obj
    if model is None:
        _print_all(session, format, output)
        return
    try:
        line = Line.parse(model)
    except BadLineName as error:
        raise Failure(str(error), exit_code=ExitCode.USAGE) from error
    with session.callers() as client:
        path = f"/v{line.major}/models/{quote(line.model, safe='')}/clients/{format.value}.zip"
        response = client.get(path)
        if not response.is_success:
            raise refused(response)
    files = _unpacked(response.content)
    if output is not None:
        _write(session, model, format, files, output)
    elif not format.single:
        raise Failure(
            f"{format.value} is a folder of {len(files)} files: say where it goes, "
            f"penstock api {model} --format {format.value} -o DIR",
            exit_code=ExitCode.USAGE,
        )
    else:
        (content,) = files.values()
        _print(session, model, format, content)


def _print_all(session: Session, format: Format, output: Path | None) -> None:
    if format is not Format.OPENAPI or output is not None:
        raise Failure("expected a model's name; only --format openapi, printed, is for all", exit_code=ExitCode.USAGE)
    with session.callers() as client:
        session.print_json(checked(client.get("/openapi.json")))


def _print(session: Session, model: str, format: Format, content: bytes) -> None:
    match format:
        case Format.DESCRIPTOR:
            typer.echo(content, nl=False)
        case Format.OPENAPI:
            typer.echo(content.decode(), nl=False)
        case _:
            session.show({"model": model, format.value: content.decode()}, Text(content.decode().rstrip("\n")))


def _unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(session: Session, model: str, format: Format, files: dict[str, bytes], output: Path) -> None:
    """Files of the same names are replaced, so that a project can be written again after a change of the model."""
    written = sorted(files)
    for name, content in files.items():
        path = output / name
        if not path.resolve().is_relative_to(output.resolve()):
            raise Failure(f"the gateway sent a file outside the project: {name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise Failure(f"{path} cannot be written: {error.strerror}") from error
    if format is Format.PYTHON:
        written += _python_stubs(session, output, files)
    readme = "" if format.single else f"; {output / 'README.md'} says what to install and how to run the example"
    session.show(
        {"model": model, "format": format.value, "directory": str(output), "files": written},
        Text(f"wrote {len(written)} files to {output}{readme}"),
    )


def _python_stubs(session: Session, output: Path, files: dict[str, bytes]) -> list[str]:
    """Protobuf classes and gRPC stubs, where grpcio-tools is installed."""
    if importlib.util.find_spec("grpc_tools") is None:
        session.tell("grpcio-tools is not installed, so generated/ is left out: `pip install grpcio-tools` brings it")
        return []
    generated = output / "generated"
    generated.mkdir(exist_ok=True)
    protos = [name.removeprefix("proto/") for name in files if name.endswith(".proto")]
    into = [f"--{kind}_out={generated}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{output / 'proto'}", *into, *protos]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"protoc refused the proto: {done.stderr.strip()}")
    return sorted(str(path.relative_to(output)) for path in generated.rglob("*.py*"))
