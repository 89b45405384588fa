"""Where one run of the demo keeps its files and listens, and the commands it runs."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.demo.children import choose_port

CALLERS_PORT, OPERATORS_PORT = 8080, 8090


class NotInstalled(Exception):
    """A command of the project is missing; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Place:
    folder: Path
    port: int
    operator_port: int

    @classmethod
    def choose(cls) -> Place:
        """A new temporary folder, and the usual ports where they are free."""
        folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
        return cls(folder, choose_port(CALLERS_PORT), choose_port(OPERATORS_PORT))

    @property
    def usual_ports(self) -> bool:
        return (self.port, self.operator_port) == (CALLERS_PORT, OPERATORS_PORT)

    @property
    def callers(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def operators(self) -> str:
        return f"http://127.0.0.1:{self.operator_port}"

    @property
    def examples(self) -> Path:
        return self.folder / "examples.jsonl"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def tool(name: str) -> str:
    """The command `name` of this installation. Raises NotInstalled."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise NotInstalled(f"expected the command {name} beside {sys.executable}: run `make demo`, which installs it")
    return str(path)


def shown(command: Sequence[str]) -> str:
    """The command as a person would type it, with paths below the working directory made short."""
    here = f"{Path.cwd()}/"
    return shlex.join([Path(command[0]).name, *(argument.removeprefix(here) for argument in command[1:])])
