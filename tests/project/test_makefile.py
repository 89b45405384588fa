"""`make` lists what there is, the README asks for nothing else, and the pins fit what is asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def listed() -> set[str]:
    return set(re.findall(r"^  make ([a-z-]+)", run("make", "--no-print-directory").stdout, re.MULTILINE))


def test_make_lists_its_targets() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert listed() == set(phony[1].split())
    assert listed() >= {"help", "demo", "test", "check", "generate", "clean"}


def test_every_listed_target_can_be_made() -> None:
    for target in listed():
        dry = run("make", "--no-print-directory", "--dry-run", target)
        assert dry.returncode == 0, dry.stderr


@pytest.mark.parametrize("document", ["README.md", "docs/rollout.md", "docs/operations.md", ".ci/run"])
def test_documents_name_only_targets_that_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(re.findall(r"`[^`]+`|^make .*|^exec .*", text)))) <= listed()


def test_the_pins_fit_what_is_asked_for() -> None:
    checked = run(sys.executable, ".ci/check_locks.py")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("requirements.in", lambda text: text + "left-pad\n", "asks for left-pad, which requirements.txt does not pin"),
        ("requirements.txt", lambda text: re.sub(r" \\\n    --hash=\S+", "", text), "has no hash"),
        ("requirements.txt", lambda text: "--find-links ./wheels\n" + text, "expected pins only"),
        (
            "requirements-dev.txt",
            lambda text: re.sub(r"(?m)^grpcio==\S+", "grpcio==1.0", text),
            "grpcio is pinned",
        ),
    ],
)
def test_a_fault_in_the_pins_is_found(tmp_path: Path, file: str, change: object, fault: str) -> None:
    assert callable(change)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/check_locks.py", tmp_path / ".ci")
    for pins in ROOT.glob("requirements*"):
        shutil.copy(pins, tmp_path)
    (tmp_path / file).write_text(change((tmp_path / file).read_text()))
    checked = run(sys.executable, ".ci/check_locks.py", cwd=tmp_path)
    assert checked.returncode == 1
    assert fault in checked.stderr
