"""Ctrl-C during the demo leaves nothing behind: no process, no port, no file."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (process / "cmdline").read_text().replace("\0", " ")


@pytest.mark.parametrize("moment", ["Starting Penstock", "Callers arrive"])
def test_the_demo_stops_cleanly(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "loadtest.demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout
        before = ""
        while moment not in before:
            line = demo.stdout.readline()
            assert line, before
            before += line
        demo.send_signal(signal.SIGINT)
        after = demo.stdout.read()
        assert demo.wait(60) == 130, before + after
    assert after.rstrip().endswith("Stopped.")
    assert "Traceback" not in before + after
    assert list(tmp_path.glob("penstock-demo-*")) == []
    assert not [command for command in command_lines() if str(tmp_path) in command]
