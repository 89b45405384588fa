"""For all tests: neither what a process inherits nor how busy the machine is may decide how they end."""

from __future__ import annotations

import signal

from hypothesis import settings

# No test of ours asserts on time: a busy machine must not fail one.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start.

    A shell starts background jobs with SIGINT ignored, and children inherit that through us.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
