"""Runs the targets on many bodies in child processes, so that a crash of LuaJIT is a finding and not the end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import mmap
import os
import pickle
import random
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lua.fuzzing.bodies import MODELS
from tests.lua.fuzzing.shrink import shrunk
from tests.lua.fuzzing.targets import TARGETS, Target
from tests.lua.scripts import Scripts

CHUNK = 2500
LARGEST_BODY = 1 << 20
CRASH_TRIES = 200
"""Tries to make a body small that crashes LuaJIT: each is a process."""


@dataclass(frozen=True)
class Failure:
    """A body for which something did not hold. `body` is as small as it could be made."""

    target: str
    model: int
    body: bytes
    what: str

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(self.body).hexdigest()[:12]
        path = folder / f"{self.target.replace(' ', '-')}-{digest}.json"
        content = {
            "target": self.target,
            "model": self.model,
            "body": base64.b64encode(self.body).decode(),
            "what": self.what,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Failure:
        content = json.loads(path.read_text())
        return cls(content["target"], content["model"], base64.b64decode(content["body"]), content["what"])


@dataclass
class Figures:
    """What was run: bodies and accepted ones by target, and what failed."""

    bodies: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, target: str, bodies: int, accepted: int) -> None:
        self.bodies[target] = self.bodies.get(target, 0) + bodies
        self.accepted[target] = self.accepted.get(target, 0) + accepted


def fuzz(count: int, seed: int, tell: Callable[[str], None]) -> Figures:
    """`count` bodies in all, spread over the targets and models."""
    figures = Figures()
    each = -(-count // (len(TARGETS) * len(MODELS)))
    for target in TARGETS:
        for which in range(len(MODELS)):
            for start in range(0, each, CHUNK):
                size = min(CHUNK, each - start)
                accepted, failure = _chunk(target, which, f"{seed}/{target.name}/{which}/{start}", size)
                figures.add(target.name, size, accepted)
                if failure:
                    figures.failures.append(failure)
        tell(f"{target.name}: {figures.bodies[target.name]:,} bodies, {figures.accepted[target.name]:,} accepted")
    return figures


def replay(failure: Failure) -> str:
    """What fails now for a saved body; "" when nothing does any more."""
    target = next(t for t in TARGETS if t.name == failure.target)
    _, found = _in_child(target, failure.model, lambda check: check(failure.body))
    return found.what if found else ""


def _chunk(target: Target, which: int, seed: str, size: int) -> tuple[int, Failure | None]:
    def bodies(check: Callable[[bytes], bool]) -> int:
        rng = random.Random(seed)
        return sum(check(target.body(MODELS[which], rng)) for _ in range(size))

    return _in_child(target, which, bodies)


def _in_child(target: Target, which: int, work: Callable[[Callable[[bytes], bool]], int]) -> tuple[int, Failure | None]:
    """Runs `work` with the target's check. A body that raises is made small in the child; one that crashes it, here."""
    with mmap.mmap(-1, LARGEST_BODY + 8) as current:
        status, result = _forked(target, which, work, current)
        if result is not None:
            accepted, body, what = result
            return accepted, Failure(target.name, which, body, what) if what else None
        body = current[8 : 8 + int.from_bytes(current[:8], "little")]

    def crashes(candidate: bytes) -> bool:
        with mmap.mmap(-1, LARGEST_BODY + 8) as scratch:
            return _forked(target, which, lambda check: check(candidate), scratch)[1] is None

    small = shrunk(body, crashes, most_tries=CRASH_TRIES) if crashes(body) else body
    return 0, Failure(target.name, which, small, f"the process ended with {_ending(status)}")


def _ending(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"


def _forked(
    target: Target, which: int, work: Callable[[Callable[[bytes], bool]], int], current: mmap.mmap
) -> tuple[int, tuple[int, bytes, str] | None]:
    """Exit status, and (accepted, failing body, what failed) unless the child crashed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), os.fdopen(writing, "wb") as out:
            pickle.dump(_work(target, which, work, current), out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as source:
        content = source.read()
    _, status = os.waitpid(child, 0)
    return status, pickle.loads(content) if content else None


def _work(
    target: Target, which: int, work: Callable[[Callable[[bytes], bool]], int], current: mmap.mmap
) -> tuple[int, bytes, str]:
    scripts = Scripts()
    made = MODELS[which]
    plan = scripts.plan(made.context())

    def check(body: bytes) -> bool:
        current[: 8 + len(body)] = len(body).to_bytes(8, "little") + body
        return target.check(scripts, made, plan, body)

    try:
        return work(check), b"", ""
    except Exception as error:  # whatever it is, it is the finding
        kind = type(error)
        failing = current[8 : 8 + int.from_bytes(current[:8], "little")]
        small = shrunk(failing, lambda candidate: _raises(check, candidate, kind))
        return 0, small, _words(check, small) or "".join(traceback.format_exception(error))


def _raises(check: Callable[[bytes], Any], body: bytes, kind: type[Exception]) -> bool:
    try:
        check(body)
    except kind:
        return True
    except Exception:  # another failure than the one that is made small
        return False
    return False


def _words(check: Callable[[bytes], Any], body: bytes) -> str:
    try:
        check(body)
    except Exception as error:  # its words are asked for
        return f"{type(error).__name__}: {error}"
    return ""
