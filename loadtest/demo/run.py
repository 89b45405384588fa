"""`make demo`: start the stack, send it traffic, and take four versions of a model through their rollouts.

Uses what a user has: the `penstock` command, the two ports, and Locust. Ends with a table and exit status 0 only when
every rollout came out as the plot says and no request failed but by version 4's own fault.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import httpx
from rich.console import Console

import loadtest
from loadtest.demo import digits
from loadtest.demo.children import Child, ChildFailed, quiet_environment, uninterrupted
from loadtest.demo.digits import Version
from loadtest.demo.place import OPERATORS_PORT, NotInstalled, Place, shown, tool
from loadtest.demo.story import ACTS, DESCRIPTIONS, MODEL, Act
from loadtest.demo.view import Line, View
from loadtest.operators import Operators, OperatorsError
from loadtest.results import Results

READY_S, TRAFFIC_S, ROLLOUT_S = 90.0, 30.0, 240.0
"""How long the stack may take to be ready, the load to begin, and a rollout to end, before the demo gives up."""

RATE = 200
"""Predictions per second: what two cores carry beside everything else that the demo runs on them."""

USERS = 20
BASELINE_S = 5
POLL_S = 0.5
SPEC = Path(__file__).with_name("rollout.yaml")
LOCUSTFILE = Path(loadtest.__file__).with_name("steady.py")


class DemoFailed(Exception):
    """The demo cannot go on; the message says at what, and what was said about it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.demo", description="Penstock's demo")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Ctrl-C")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    view, place = View(_console()), Place.choose()
    try:
        good = Demo(view, place).play(keep=options.keep)
    except KeyboardInterrupt:
        view.note("Stopped.")
        place.remove()
        return 130
    except (DemoFailed, ChildFailed, NotInstalled, OperatorsError) as error:
        view.failure(str(error))
        good = False
    if good:
        place.remove()
    else:
        view.note(f"Logs and data are in {place.folder}")
    return 0 if good else 1


def _console() -> Console:
    """A terminal as wide as it is; a hundred columns for a pipe, whose width nobody set."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


class Demo:
    """One performance, from training to the closing table."""

    def __init__(self, view: View, place: Place) -> None:
        self._view = view
        self._place = place
        self._data_dir = place.folder / "data"
        self._children: list[Child] = []

    def play(self, *, keep: bool) -> bool:
        """Whether everything came out as it should. With `keep`, returns only after Ctrl-C."""
        models = self._train()
        with ExitStack() as running:
            try:
                running.callback(self._end_leftovers)
                with uninterrupted():
                    self._children.append(running.enter_context(self._start_stack()))
                operators = running.enter_context(Operators(self._place.operators))
                self._wait_ready(operators)
                self._view.title(f"Version 1 goes live: {DESCRIPTIONS[Version.FIRST]}")
                self._deploy(models[Version.FIRST])
                self._ask_once()
                with uninterrupted():
                    load = running.enter_context(self._start_load())
                self._children.append(load)
                self._wait_traffic()
                lines = [self._rollout(act, models[act.version], operators) for act in ACTS]
                self._children.remove(load)
                load.stop()
                good = self._conclude(lines)
                if keep:
                    self._hold()
            except KeyboardInterrupt:
                self._view.note("Stopping ...")
                raise
            finally:
                # The children end in order, whatever a second Ctrl-C may want.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return good

    def _train(self) -> dict[Version, Path]:
        self._view.title("Training four versions of a model that reads handwritten digits")
        data = digits.load()

        def trained(version: Version, accuracy: float) -> None:
            self._view.done(f"v{int(version)}  {accuracy:6.1%} right", DESCRIPTIONS[version])

        with self._view.waiting("training"):
            models = digits.write_models(self._place.folder, data, trained)
        digits.write_examples(self._place.examples, data)
        return models

    def _start_stack(self) -> Child:
        self._view.title("Starting Penstock: control plane, Envoy, Triton")
        if not self._place.usual_ports:
            self._view.note("The usual ports are taken, so others are used.")
        command = [
            *(tool("penstock"), "up", "--data-dir", str(self._data_dir)),
            *("--port", str(self._place.port), "--operator-port", str(self._place.operator_port)),
        ]
        self._view.command(shown(command))
        return Child("penstock up", command, log=self._place.folder / "penstock-up.log", env=quiet_environment())

    def _end_leftovers(self) -> None:
        """Envoy and Triton outlive a control plane that was killed; after a clean stop this finds nothing."""
        command = [tool("penstock"), "down", "--data-dir", str(self._data_dir)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def _wait_ready(self, operators: Operators) -> None:
        started = time.monotonic()
        with self._view.waiting("waiting until a prediction could be served"):
            while not operators.ready():
                self._check_children()
                if time.monotonic() - started > READY_S:
                    raise DemoFailed(f"Penstock was not ready in {READY_S:.0f} s:\n{self._children[0].tail()}")
                time.sleep(POLL_S)
        self._view.done(f"ready after {time.monotonic() - started:.0f} s")

    def _deploy(self, model: Path, *options: str) -> None:
        where = () if self._place.operator_port == OPERATORS_PORT else ("--server", self._place.operators)
        command = [tool("penstock"), "deploy", str(model), "--name", MODEL, *options, *where]
        self._view.command(shown(command))
        with self._view.waiting("deploying"):
            finished = subprocess.run(command, capture_output=True, text=True, env=quiet_environment(), check=False)
        if finished.returncode != 0:
            raise DemoFailed(f"penstock deploy {model.name} failed:\n{finished.stderr or finished.stdout}")
        for line in finished.stdout.splitlines():
            self._view.note(line.strip())

    def _ask_once(self) -> None:
        """One prediction as any caller would ask for it, shown as it is."""
        with self._place.examples.open(encoding="utf-8") as file:
            body = json.dumps({"instances": [json.loads(file.readline())["instance"]]})
        url = f"{self._place.callers}/v1/models/{MODEL}:predict"
        self._view.command(f"curl {url} -d '{body[:48]} ...'")
        try:
            answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=10.0)
        except httpx.HTTPError as error:
            raise DemoFailed(f"the first prediction failed: {error}") from error
        if not answer.is_success:
            raise DemoFailed(f"the first prediction failed: {answer.text}")
        self._view.note(answer.text[:100] + " ...")

    def _start_load(self) -> Child:
        self._view.title("Callers arrive")
        options = ["--host", self._place.callers, "--model", MODEL, "--rate", str(RATE)]
        self._view.command(shown(["locust", "-f", "loadtest/steady.py", *options, "..."]))
        command = [
            *(tool("locust"), "-f", str(LOCUSTFILE), *options, "--headless"),
            *("--users", str(USERS), "--spawn-rate", str(USERS), "--stop-timeout", "5"),
            *("--examples", str(self._place.examples), "--results", str(self._place.results)),
        ]
        return Child("locust", command, log=self._place.folder / "locust.log", env=quiet_environment())

    def _wait_traffic(self) -> None:
        started = time.monotonic()
        with self._view.waiting("sending the first predictions"):
            while Results.read(self._place.results).requests < BASELINE_S * RATE:
                self._check_children()
                if time.monotonic() - started > TRAFFIC_S:
                    raise DemoFailed(f"hardly any prediction in {TRAFFIC_S:.0f} s:\n{self._children[-1].tail()}")
                time.sleep(POLL_S)
        self._view.done(f"{RATE} predictions a second, half JSON, half gRPC, each followed by its true label")

    def _rollout(self, act: Act, model: Path, operators: Operators) -> Line:
        self._view.title(act.title)
        self._deploy(model, "--rollout", str(SPEC))
        started = time.monotonic()
        with self._view.rollout() as picture:
            while True:
                self._check_children()
                rollout = operators.rollout(MODEL, int(act.version))
                if rollout is not None:
                    picture.show(rollout, Results.read(self._place.results))
                    if rollout.final:
                        break
                if time.monotonic() - started > ROLLOUT_S:
                    where = "has not begun" if rollout is None else f"is {rollout.state_words}: {rollout.waiting_for}"
                    raise DemoFailed(f"after {ROLLOUT_S:.0f} s the rollout of v{int(act.version)} {where}")
                time.sleep(POLL_S)
        line = Line(
            version=rollout.candidate,
            what=DESCRIPTIONS[act.version],
            verdict=rollout.state.replace("_", " "),
            as_expected=act.came_out(rollout),
            reason=rollout.reason,
            seconds=rollout.seconds,
        )
        self._view.verdict(line)
        return line

    def _conclude(self, lines: list[Line]) -> bool:
        """Print the table, what failed beside, and where to look; whether all is as it should be."""
        results = Results.read(self._place.results)
        first = Line(int(Version.FIRST), DESCRIPTIONS[Version.FIRST], "live", True, "first version, live when ready")
        self._view.table(
            [
                replace(
                    line,
                    users=results.share_of_users(line.version),
                    requests=results.requests_of(line.version),
                    failed=results.failed_of(line.version),
                )
                for line in (first, *lines)
            ]
        )
        lost = results.failed_except([int(Version.FAULTY)])
        for failure in results.failures:
            if failure.version != int(Version.FAULTY):
                self._view.failure(
                    f"{failure.count} x {failure.protocol} v{failure.version} {failure.reason}: {failure.example}"
                )
        if lost:
            self._view.failure(f"{lost:,} of {results.requests:,} requests failed that should not have")
        else:
            self._view.done(f"{results.requests:,} requests, none failed but by version 4's own fault")
        self._view.title("Where to look while it runs (make demo KEEP=1 leaves it running)")
        self._view.links(
            {
                "API docs": f"{self._place.callers}/docs",
                "generated .proto": f"{self._place.callers}/v1/models/{MODEL}.proto",
                "OpenAPI": f"{self._place.callers}/v1/models/{MODEL}/openapi.json",
                "operators' API": f"{self._place.operators}/api/v1/openapi.json",
                "metrics": f"{self._place.operators}/metrics",
            }
        )
        return not lost and all(line.as_expected for line in lines)

    def _hold(self) -> None:
        self._view.title("Everything but the callers is left running; Ctrl-C ends it")
        try:
            while True:
                self._check_children()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            return

    def _check_children(self) -> None:
        for child in self._children:
            child.check()
