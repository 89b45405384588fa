"""The demo's processes end with it, whatever they do."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from loadtest.demo import children
from loadtest.demo.children import Child, ChildFailed, choose_port

SLEEP = [sys.executable, "-c", "print('up', flush=True); import signal; signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()",
]


def wait_for_output(child: Child) -> None:
    while "up" not in child.log.read_text():
        child.check()


def gone(child: Child) -> bool:
    with pytest.raises(ChildFailed):
        child.check()
    return True


def test_a_child_ends_when_its_block_ends(tmp_path: Path) -> None:
    with Child("sleeper", SLEEP, log=tmp_path / "log") as child:
        wait_for_output(child)
        child.check()
    assert gone(child)


def test_a_child_that_ignores_the_request_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_S", 0.1)
    with Child("stubborn", STUBBORN, log=tmp_path / "log") as child:
        wait_for_output(child)
    assert gone(child)


def test_a_child_is_out_of_reach_of_the_terminals_interrupt(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, signal; print('up', os.getsid(0), flush=True); signal.pause()"]
    with Child("own session", command, log=tmp_path / "log") as child:
        wait_for_output(child)
        assert child.log.read_text().split()[1] != str(os.getsid(0))


def test_a_child_that_ends_by_itself_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with Child(
        "quitter", [sys.executable, "-c", "raise SystemExit('port 8080 is taken')"], log=tmp_path / "log"
    ) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ChildFailed, match=r"(?s)quitter ended by itself with status 1.*port 8080 is taken"):
            child.check()
        child.stop()


def test_a_killed_child_is_reported_too(tmp_path: Path) -> None:
    with Child("sleeper", SLEEP, log=tmp_path / "log") as child:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ChildFailed, match="status -9"):
            child.check()


def test_the_usual_port_is_chosen_when_it_is_free_and_another_when_it_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        other = choose_port(port)
        assert other != port
    assert choose_port(other) == other
