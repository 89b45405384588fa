"""An event loop whose time jumps from timer to timer, so that hours of rollout take milliseconds, always alike."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = 1_800_000_000.0


class _JumpingSelector(selectors.BaseSelector):
    """Instead of waiting for the next timer, moves the loop's time there."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready and timeout is None:
            raise RuntimeError("the test waits for something that cannot happen: no timer is set")
        if not ready and timeout:
            self._jump(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_JumpingSelector(self.jump))

    def time(self) -> float:
        return self._virtual

    def jump(self, seconds: float) -> None:
        self._virtual += seconds


class VirtualClock:
    """`rollout.ports.Clock` on a virtual loop; `freeze` is a SIGSTOP: time passes and nothing runs."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def freeze(self, seconds: float) -> None:
        self._loop.jump(seconds)


def run_virtual(test: Callable[[VirtualClock], Coroutine[Any, Any, T]], start: float = 0.0) -> T:
    """Run a coroutine on a new virtual loop whose time begins at `start`; its result."""
    loop = VirtualLoop()
    loop.jump(start)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(test(VirtualClock(loop)))
