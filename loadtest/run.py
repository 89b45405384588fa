"""Plays one plan: users under Locust in this process or in workers, the scenario beside them, a record at the end.

`loadtest.main` makes the plan and shows the record. A run ends when the schedule has ended and every request that was
sent is answered; earlier when the canary's rollout has ended, or a ramp has found its knee.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

import gevent
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner

from loadtest.canary import Canary
from loadtest.figures import Figures, plateaus
from loadtest.options import Options
from loadtest.place import Prepared
from loadtest.record import Record, Surroundings
from loadtest.scenarios import RAMP_STEPS, Scenario, find_knee
from loadtest.sending import Sending
from loadtest.tally import Tally
from loadtest.users import DEADLINE_S, USERS
from loadtest.workers import Master, start_workers

LEAD_S = 1.5
"""From the order to start until second 0: users and their connections are made meanwhile."""

TICK_S = 0.25

LIBRARIES = ("locust", "gevent", "grpcio", "geventhttpclient")


@dataclass(frozen=True, slots=True)
class Moment:
    """How the run stands, for whoever shows it."""

    second: float
    record: Record


class Run:
    """One test. `interrupt` ends it early from a signal handler or another greenlet."""

    def __init__(self, options: Options, prepared: Prepared) -> None:
        self.options = options
        self.plan = replace(options.plan, protocols=tuple(prepared.calls))
        self._prepared = prepared
        self._tally = Tally()
        self._interrupted = ""
        self._canary: Canary | None = None
        self._begins = 0.0
        self._surroundings = self._describe()

    def interrupt(self, why: str) -> None:
        self._interrupted = self._interrupted or why

    def play(self, watch: Callable[[Moment], None]) -> Record:
        """Play it to its end; `watch` is called once a second. Raises WorkersMissing."""
        environment = Environment(
            user_classes=[USERS[protocol] for protocol in self.plan.protocols],
            host=self.plan.gateway,
            stop_timeout=DEADLINE_S,
            catch_exceptions=False,
        )
        if self._processes(self.options) > 1 or self.options.remote_workers:
            return self._play_distributed(environment, watch)
        runner = environment.create_local_runner()
        starts_at = time.time() + LEAD_S
        sending = Sending(self._prepared.load(starts_at=starts_at))
        self._tally = sending.load.tally
        try:
            return self._play(environment, runner, starts_at, sending.stop_sending, watch)
        finally:
            sending.close()

    def _play_distributed(self, environment: Environment, watch: Callable[[Moment], None]) -> Record:
        runner = environment.create_master_runner(self.options.bind, self.options.master_port)
        master = Master(environment, runner, tally=self._tally)
        children = start_workers(self.options.workers, port=self.options.master_port)
        try:
            master.prepare(self.plan, workers=self._processes(self.options))
            starts_at = time.time() + LEAD_S
            master.begin(starts_at)
            return self._play(environment, runner, starts_at, master.stop_sending, watch)
        finally:
            if runner.state != "quit":
                runner.quit()
            for child in children:
                child.terminate()
                child.wait()

    def _play(
        self,
        environment: Environment,
        runner: LocalRunner | MasterRunner,
        starts_at: float,
        stop_sending: Callable[[], None],
        watch: Callable[[Moment], None],
    ) -> Record:
        self._begins = time.perf_counter() + starts_at - time.time()
        page = None
        if self.options.web is not None:
            # Locust's page takes this program's arguments for Locust's own.
            del sys.argv[1:]
            page = environment.create_web_ui("127.0.0.1", self.options.web)
        if self.plan.scenario is Scenario.CANARY:
            self._canary = Canary(self.plan, begins=self._begins)
        users = self._users(0.0)
        runner.start(users, spawn_rate=max(users, 1))
        shown = 0.0
        seconds = self.plan.schedule.seconds
        try:
            while (second := time.perf_counter() - self._begins) < self.plan.schedule.seconds:
                self._notice_missing(runner)
                if self._over(second):
                    seconds = max(0.0, second)
                    break
                if (wanted := self._users(second)) != users:
                    users = wanted
                    runner.start(users, spawn_rate=max(users, 1))
                if second >= shown + 1:
                    shown = float(int(second))
                    watch(Moment(second, self._record(second)))
                gevent.sleep(TICK_S)
        finally:
            stop_sending()
            if self._canary is not None:
                self._canary.stop()
            self._wait_answered(runner)
            runner.quit()
            if page is not None:
                page.stop()
        return self._record(seconds)

    def _notice_missing(self, runner: LocalRunner | MasterRunner) -> None:
        """A worker that went away takes its share of the load with it: what is counted is no longer the plan's."""
        if isinstance(runner, MasterRunner):
            there = len(runner.clients.all) - len(runner.clients.missing)
            if there < self._surroundings.processes:
                self.interrupt(f"only {there} of {self._surroundings.processes} workers are left")

    def _users(self, second: float) -> int:
        """An open loop has all its users from the start; in a closed one they are the load."""
        if not self.plan.closed:
            return self.plan.most_users
        return max(1, round(self.plan.schedule.rate_at(second)))

    def _over(self, second: float) -> bool:
        if self._interrupted:
            return True
        if self._canary is not None and self._canary.ended:
            return True
        if self.plan.scenario is Scenario.RAMP:
            # Two steps past the knee: the second shows that the first was no hiccup.
            played = int(second / (self.plan.seconds / RAMP_STEPS))
            steps = plateaus(self._record(second), played)
            return played >= 2 and all(
                find_knee(steps[:index], closed=self.plan.closed).gave_way for index in (played - 1, played)
            )
        return False

    def _wait_answered(self, runner: LocalRunner | MasterRunner) -> None:
        """Until every user has its answer: they end by themselves when no turn is left."""
        with gevent.Timeout(DEADLINE_S + 5, False):
            while runner.user_count:
                gevent.sleep(TICK_S)

    def _record(self, seconds: float) -> Record:
        canary = self._canary
        failed = canary.failed if canary is not None else ""
        unfinished = ""
        if canary is not None and not canary.outcome and not failed:
            unfinished = f"the rollout had not ended after {seconds:,.0f} s; --duration gives it longer"
        return Record(
            plan=self.plan,
            tally=self._tally,
            seconds=seconds,
            events=tuple(canary.events) if canary is not None else (),
            surroundings=self._surroundings,
            outcome=canary.outcome if canary is not None else "",
            candidate=canary.candidate if canary is not None else None,
            stopped_early=self._interrupted or failed or unfinished,
        )

    def _describe(self) -> Surroundings:
        return Surroundings(
            started_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            command=shlex.join(["penstock", "load", *sys.argv[1:]]),
            cores=os.cpu_count() or 1,
            processes=self._processes(self.options),
            versions={name: version(name) for name in LIBRARIES},
        )

    @staticmethod
    def _processes(options: Options) -> int:
        return max(1, options.workers + options.remote_workers)


def summary_line(moment: Moment) -> str:
    """One line of progress: the last second that is known whole, and the failures so far."""
    tally = moment.record.tally
    # Workers report every three seconds.
    last = int(moment.second) - (1 if moment.record.surroundings.processes == 1 else 5)
    answered = sum(count for (second, _), count in tally.answers.items() if second == last)
    figures = Figures(moment.record)
    p50, p99 = (f"{ms:,.1f} ms" if (ms := figures.latencies.quantile_ms(q)) is not None else "-" for q in (0.5, 0.99))
    due = moment.record.plan.schedule.rate_at(moment.second)
    unit = "users" if moment.record.plan.closed else "/s due"
    event = moment.record.events[-1].what if moment.record.events else ""
    return (
        f"{moment.second:6.0f} s  {due:7,.0f} {unit}  {answered:7,.0f}/s answered  "
        f"p50 {p50:>10}  p99 {p99:>11}  {figures.failed:,} failed  {event}"
    ).rstrip()
