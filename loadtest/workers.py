"""Load from several processes: Locust's master and workers, with this project's counts carried in Locust's reports.

The master gives each worker the plan and its share of the arrivals, waits until all have made their requests, and
says when second 0 is. Machines that take part need clocks that agree (NTP): a clock that is off shifts the worker's
arrivals by as much, not its latencies.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.place import CANNOT, Prepared, prepare
from loadtest.plan import Plan
from loadtest.sending import Sending
from loadtest.tally import Tally
from loadtest.users import USERS

PLAN, READY, BEGIN, STOP = "penstock-plan", "penstock-ready", "penstock-begin", "penstock-stop"
CONTENT = "penstock"
CONNECT_S = 60.0


class WorkersMissing(Exception):
    """Not all workers came, or one cannot do its part; the message says which."""


class Master:
    """Commands the workers and gathers what they count into `tally`."""

    def __init__(self, environment: Environment, runner: MasterRunner, *, tally: Tally) -> None:
        self._runner = runner
        self._tally = tally
        self._answers: dict[str, str] = {}
        runner.register_message(READY, self._on_ready)
        environment.events.worker_report.add_listener(self._on_report)

    def prepare(self, plan: Plan, *, workers: int) -> None:
        """Wait for so many workers and give each its part. Raises WorkersMissing."""
        self._wait(lambda: len(self._runner.clients.ready) >= workers, workers, "came")
        for index, client in enumerate(list(self._runner.clients.ready)):
            content = {"plan": plan.to_json(), "worker": index, "workers": workers}
            self._runner.send_message(PLAN, content, client.id)
        self._wait(lambda: len(self._answers) >= workers, workers, "made their requests")
        failed = next((answer for answer in self._answers.values() if answer), None)
        if failed is not None:
            raise WorkersMissing(f"a worker cannot take part: {failed}")

    def begin(self, starts_at: float) -> None:
        self._runner.send_message(BEGIN, {"starts_at": starts_at})

    def stop_sending(self) -> None:
        self._runner.send_message(STOP, {})

    def _wait(self, done: Callable[[], bool], workers: int, what: str) -> None:
        with gevent.Timeout(CONNECT_S, False):
            while not done():
                gevent.sleep(0.05)
            return
        raise WorkersMissing(f"not all of {workers} workers {what} within {CONNECT_S:.0f} s")

    def _on_ready(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._answers[msg.node_id] = msg.data["cannot"]

    def _on_report(self, client_id: str, data: Mapping[str, Any], **_: Any) -> None:
        if CONTENT in data:
            self._tally.merge(data[CONTENT])


class Worker:
    """Does its share of one test, then ends."""

    def __init__(self, *, host: str, port: int) -> None:
        self._environment = Environment(user_classes=list(USERS.values()))
        self._runner: WorkerRunner = self._environment.create_worker_runner(host, port)
        self._order: Mapping[str, Any] = {}
        self._prepared: Prepared | None = None
        self._sending: Sending | None = None
        for name, listener in ((PLAN, self._on_plan), (BEGIN, self._on_begin), (STOP, self._on_stop)):
            self._runner.register_message(name, listener)
        self._environment.events.report_to_master.add_listener(self._report)

    def run(self) -> int:
        self._runner.greenlet.join()
        return 0

    def _on_plan(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._order = msg.data
        answer = ""
        try:
            self._prepared = prepare(Plan.from_json(msg.data["plan"]))
        except CANNOT as error:
            answer = str(error)
        self._runner.send_message(READY, {"cannot": answer})

    def _on_begin(self, environment: Environment, msg: Any, **_: Any) -> None:
        assert self._prepared is not None, "the master begins when every worker has made its requests"
        worker, workers = self._order["worker"], self._order["workers"]
        self._sending = Sending(self._prepared.load(starts_at=msg.data["starts_at"], worker=worker, workers=workers))

    def _on_stop(self, environment: Environment, msg: Any, **_: Any) -> None:
        if self._sending is not None:
            self._sending.stop_sending()

    def _report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        if self._sending is not None:
            data[CONTENT] = self._sending.load.tally.drain()


def start_workers(count: int, *, port: int) -> list[subprocess.Popen[bytes]]:
    """Workers on this machine, which end with their master."""
    command = [sys.executable, "-m", "loadtest", "--worker", "--master-port", str(port)]
    return [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(count)]
