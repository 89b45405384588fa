"""The load tester's main: options, the run, the report, three things said, and the exit status."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loadtest.conclusion import conclude
from loadtest.figures import Figures
from loadtest.options import DEFAULT_MASTER_PORT, Options, parse
from loadtest.place import CANNOT, prepare
from loadtest.plan import check
from loadtest.report import report_html
from loadtest.run import Moment, Run, summary_line
from loadtest.tables import seconds_csv, summary_csv
from loadtest.workers import Worker, WorkersMissing

MET, NOT_MET, WRONG = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="load: %(message)s")
    # It warns of many users a second, which are few here, and of things that end the run with words of our own.
    logging.getLogger("locust.runners").setLevel(logging.ERROR)
    options = parse(arguments)
    if options.worker:
        return Worker(host=options.master_host, port=options.master_port).run()
    try:
        check(options.plan, allow_remote=options.allow_remote)
        prepared = prepare(options.plan)
    except CANNOT as error:
        return _refuse(str(error))
    options = _with_port(options)
    run = Run(options, prepared)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.interrupt("it was interrupted"))
    plan = run.plan
    print(f"{plan.model} at {plan.gateway}: {plan.scenario}, {plan.arrivals_words}, {', '.join(plan.protocols)}")
    if options.web is not None:
        print(f"Locust's page: http://127.0.0.1:{options.web}")
    try:
        record = run.play(_quiet if options.quiet else _show)
    except WorkersMissing as error:
        return _refuse(str(error))
    figures = Figures(record)
    conclusion = conclude(figures)
    folder = options.out or Path(f"load-{plan.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.html"
    report.write_text(report_html(figures, conclusion), encoding="utf-8")
    (folder / "record.json").write_text(record.to_json(), encoding="utf-8")
    (folder / "summary.csv").write_text(summary_csv(figures), encoding="utf-8")
    (folder / "seconds.csv").write_text(seconds_csv(record), encoding="utf-8")
    for caution in conclusion.cautions:
        print(f"Caution: {caution}")
    print(conclusion.verdict)
    print(f"Report: {report}")
    return MET if conclusion.met else NOT_MET


def _show(moment: Moment) -> None:
    print(summary_line(moment), flush=True)


def _quiet(_moment: Moment) -> None:
    """Nothing is said."""


def _refuse(message: str) -> int:
    print(f"load: {message}", file=sys.stderr)
    return WRONG


def _with_port(options: Options) -> Options:
    """With workers of this machine alone, any free port does for the master."""
    if options.workers and not options.remote_workers and options.master_port == DEFAULT_MASTER_PORT:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return replace(options, master_port=int(probe.getsockname()[1]))
    return options
