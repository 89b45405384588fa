"""`python -m loadtest` against a running stack, as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from loadtest.figures import Figures
from loadtest.record import Record
from tests.e2e.running import Penstock


@dataclass(frozen=True)
class Ended:
    """How a load test ended, and what it left behind."""

    status: int
    said: str
    folder: Path

    @property
    def figures(self) -> Figures:
        return Figures(Record.from_json((self.folder / "record.json").read_text(encoding="utf-8")))


def load(penstock: Penstock, folder: Path, *options: str) -> Ended:
    addresses = ("--gateway", penstock.url, "--server", penstock.operators)
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", *addresses, *options, "--out", str(folder), "--quiet"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ended(done.returncode, done.stdout + done.stderr, folder)
