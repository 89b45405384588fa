"""One process that sends: the load of its users, a clock of its CPU, and nothing of where the results go.

`loadtest.main` uses it directly when it sends by itself; workers (`loadtest.workers`) use it on the master's order.
"""

from __future__ import annotations

import time

import gevent

from loadtest.users import Load, PredictUser


class Sending:
    """Sets the load of this process' users, and samples what their thread costs until stopped."""

    def __init__(self, load: Load) -> None:
        self.load = load
        PredictUser.load = load
        self._sampler = gevent.spawn(self._sample)

    def stop_sending(self) -> None:
        """No further request; those under way are finished by their users."""
        self.load.pace.stop()

    def close(self) -> None:
        self._sampler.kill()

    def _sample(self) -> None:
        """Every second the CPU time of this thread, in which all greenlets run, from the first request on."""
        gevent.sleep(max(0.0, self.load.begins - time.perf_counter()))
        at, cpu = time.perf_counter(), time.thread_time()
        while True:
            gevent.sleep(1.0)
            now, used = time.perf_counter(), time.thread_time()
            self.load.tally.used_cpu(self.load.second(at), cpu_s=used - cpu, share=(used - cpu) / (now - at))
            at, cpu = now, used
