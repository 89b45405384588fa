"""The shell and Python blocks of a quickstart, run as they stand against a real stack.

A block is fenced with ```sh or ```python; what a reader must do first in another terminal is in words, not in a block.
The addresses of the documents are replaced by the stack's own, and the checkout's .venv and clients/ are reachable
from the fresh folder in which the blocks run.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.e2e.running import Penstock

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[str]:
    """Those of the shell, and those of Python as the commands that run them where `digits_model.py` was written."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text if kind == "sh" else _with_python(text) for kind, text in found]


def _with_python(text: str) -> str:
    return f"PYTHONPATH=digits-python client/bin/python - <<'EXAMPLE'\n{text}EXAMPLE\n"


def fresh_folder(folder: Path) -> Path:
    """Where a reader stands: a checkout with its environment, and nothing else."""
    for name in (".venv", "clients"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_block(block: str, folder: Path, penstock: Penstock) -> str:
    """What it printed. Every command must succeed."""
    text = block.replace("127.0.0.1:8080", penstock.authority).replace("http://127.0.0.1:8090", penstock.operators)
    text = re.sub(
        r"(?m)^(\.venv/bin/penstock)", rf"\1 --gateway {penstock.url} --server {penstock.operators}", text
    ).replace("curl -s ", "curl -sS --fail-with-body ")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout
