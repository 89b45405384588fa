"""Each peer in an environment of its own, under build/peers: their pins contradict each other's and ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / "build" / "peers"


class NotInstalled(Exception):
    """A peer cannot be installed here; the message says why. The others are measured."""


def python_of(peer: str, progress: Callable[[str], None]) -> Path:
    """The interpreter of a peer's environment, which is made at the first call. Raises NotInstalled."""
    wanted = (HERE / "requirements" / f"{peer}.txt").read_text(encoding="utf-8")
    folder = ENVIRONMENTS / peer
    installed = folder / "installed.txt"
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted:
        return folder / "bin" / "python"
    progress(f"installing {', '.join(wanted.split())} into {folder.relative_to(ROOT)}")
    _run(peer, [sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(peer, [*pip, "-r", str(HERE / "requirements" / f"{peer}.txt")])
    installed.write_text(wanted, encoding="utf-8")
    return folder / "bin" / "python"


def version_of(peer: str) -> str:
    """The version that is pinned, in the first line."""
    return (HERE / "requirements" / f"{peer}.txt").read_text(encoding="utf-8").split()[0].partition("==")[2]


def _run(peer: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotInstalled(f"{peer} could not be installed: {(done.stderr or done.stdout).strip()[-500:]}")
