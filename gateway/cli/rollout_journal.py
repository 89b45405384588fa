"""`penstock rollout report`, `replay` and `plan`: what can be made of a rollout's journal, here and without a server.

The journal comes from the operators' API by a model's name or a rollout's number, or from a file that was saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.session import ExitCode, Failure, Session, checked, refused

if TYPE_CHECKING:
    from rollout.journal import Record, RolloutRow
    from rollout.outlook import StepForecast
    from rollout.rehearsal import Rehearsal, Traffic
    from rollout.replay import Replay
    from rollout.spec import RolloutSpec

# What a command needs of rollout/ is imported inside it: numpy and matplotlib take longer than most commands.

Source = Annotated[
    str, typer.Argument(help="A model's name, for its last rollout; a rollout's number; or a saved journal (.jsonl).")
]
_SHOWN_DIFFERENCES = 10


class ReportForm(StrEnum):
    HTML = "html"
    SVG = "svg"
    PNG = "png"


def report(
    ctx: typer.Context,
    rollout: Source,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; its ending says what: .html, .svg or .png.")
    ] = None,
) -> None:
    """Draw a rollout: weights, evidence, errors, latency and what happened, in one file that needs nothing else.

    Examples:

      penstock rollout report iris                    # rollout-7.html: the picture, every decision, the spec

      penstock rollout report 7 -o rollout-7.png      # the picture alone
    """
    from rollout.chronicle import chronicle
    from rollout.explain import explain
    from rollout.picture import Form, picture
    from rollout.report_page import report_page

    session: Session = ctx.obj
    row, records = _read(session, rollout)
    path = output or Path(f"rollout-{row.id}.html")
    forms = [form.value for form in ReportForm]
    if path.suffix.removeprefix(".") not in forms:
        ending = path.suffix or "no ending"
        raise Failure(
            f"--output {path}: expected a file that ends in .{', .'.join(forms)}, received {ending}",
            exit_code=ExitCode.USAGE,
        )
    form, told = ReportForm(path.suffix.removeprefix(".")), chronicle(row, records)
    if form is ReportForm.HTML:
        content = report_page(told, explain(row, records)).encode()
    else:
        content = picture(told, Form(form.value))
    _write(path, content)
    session.show({"file": str(path), "bytes": len(content)}, Text(f"wrote {path}"))


def replay(
    ctx: typer.Context,
    rollout: Source,
    save: Annotated[Path | None, typer.Option(help="Keep the journal in this file (.jsonl) too.")] = None,
) -> None:
    """Judge a rollout again from its journal and compare every verdict, byte for byte; exit 1 when one differs.

    Examples:

      penstock rollout replay iris --save iris.jsonl

      penstock rollout replay iris.jsonl              # anywhere, without a server
    """
    from rollout.dump import dump
    from rollout.replay import replay as judge_again

    session: Session = ctx.obj
    row, records = _read(session, rollout)
    if save is not None:
        _write(save, "".join(dump(row, records)).encode())
    found = judge_again(row, records)
    session.show(found.to_json(), _replayed(row, found))
    if not found.same:
        raise Failure(
            f"{len(found.differences)} records of rollout {row.id} come out otherwise: the journal was changed, or "
            "this version of Penstock judges differently from the one that wrote it"
        )


def plan(
    ctx: typer.Context,
    spec: Annotated[Path, typer.Argument(help="A rollout spec (YAML).", exists=True, dir_okay=False, readable=True)],
    traffic: Annotated[
        str | None, typer.Option(help="Recorded traffic: a saved journal, a model's name or a rollout's number.")
    ] = None,
    rps: Annotated[float | None, typer.Option(help="Described traffic: requests per second.", min=0.001)] = None,
    errors: Annotated[float, typer.Option(help="Share of requests that fail.", min=0, max=1)] = 0.001,
    p50: Annotated[float, typer.Option(help="Median latency, milliseconds.", min=0.1)] = 20.0,
    p99: Annotated[float, typer.Option(help="99th percentile of latency, milliseconds.", min=0.1)] = 80.0,
    labelled: Annotated[float, typer.Option(help="Share of answers whose label comes back.", min=0, max=1)] = 0.0,
    wrong: Annotated[float, typer.Option(help="Share of labelled answers that are wrong.", min=0, max=1)] = 0.1,
    candidate_errors: Annotated[
        float | None, typer.Option(help="The candidate's share of failures, when it is not stable's.", min=0, max=1)
    ] = None,
    candidate_wrong: Annotated[
        float | None, typer.Option(help="The candidate's share of wrong answers.", min=0, max=1)
    ] = None,
    slower: Annotated[float, typer.Option(help="The candidate's latency is this many times stable's.", min=0.01)] = 1.0,
    seed: Annotated[int, typer.Option(help="Chance, the same for the same number.", min=0)] = 0,
) -> None:
    """Run a spec offline, through the real judge, on recorded or described traffic.

    Says when each step would be passed, what a bad candidate would cost, and what this traffic cannot show.

    Examples:

      penstock rollout plan careful.yaml --rps 20

      penstock rollout plan careful.yaml --rps 200 --candidate-errors 0.05

      penstock rollout plan careful.yaml --traffic iris.jsonl
    """
    from rollout.outlook import forecasts
    from rollout.rehearsal import rehearse
    from rollout.traffic import Answers, Described, Recorded

    session: Session = ctx.obj
    if (traffic is None) == (rps is None):
        raise Failure("give either --traffic (recorded) or --rps (described)", exit_code=ExitCode.USAGE)
    chosen = _spec(spec)
    on: Traffic
    if traffic is not None:
        row, records = _read(session, traffic)
        try:
            on = Recorded(row, records, seed=seed)
        except ValueError as error:
            raise Failure(str(error)) from error
    else:
        assert rps is not None
        stable = Answers(errors, p50, max(p99, p50), labelled, wrong)
        candidate = Answers(
            errors if candidate_errors is None else candidate_errors,
            p50 * slower,
            max(p99, p50) * slower,
            labelled,
            wrong if candidate_wrong is None else candidate_wrong,
        )
        on = Described(rps, stable, candidate, seed=seed)
    found, outlook = rehearse(chosen, on), forecasts(chosen, on.flow)
    value = {**found.to_json(), "rps": on.flow.rps, "forecasts": [asdict(step) for step in outlook]}
    session.show(value, Group(_rehearsed(found, on.flow.rps), Text(), _foreseen(outlook)))


def _read(session: Session, rollout: str) -> tuple[RolloutRow, list[Record]]:
    from rollout.dump import DumpError, parse

    path = Path(rollout)
    try:
        if path.suffix == ".jsonl":
            return parse(path.read_text().splitlines())
        return parse(_fetched(session, rollout))
    except OSError as error:
        raise Failure(f"the journal {path} cannot be read: {error}") from error
    except (DumpError, UnicodeDecodeError) as error:
        raise Failure(f"{rollout} is not a rollout's journal: {error}") from error


def _fetched(session: Session, rollout: str) -> Sequence[str]:
    with session.operators(timeout_s=120.0) as client:
        number = rollout
        if not rollout.isdigit():
            number = checked(client.get(f"/api/v1/models/{quote(rollout, safe='')}/rollout"))["rollout_id"]
        answer = client.get(f"/api/v1/rollouts/{number}/journal")
        if not answer.is_success:
            raise refused(answer)
        return answer.text.splitlines()


def _spec(path: Path) -> RolloutSpec:
    from rollout.spec_file import SpecError, parse_spec

    try:
        return parse_spec(path.read_text(), str(path))
    except SpecError as error:
        raise Failure(str(error)) from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error}") from error


def _replayed(row: RolloutRow, found: Replay) -> RenderableType:
    head = f"rollout {row.id}: {row.model} from version {row.stable} to {row.candidate}"
    judged = f"judged again: {found.verdicts:,} verdicts, {found.states:,} states of the judge"
    if found.same:
        return Text(f"{head}\n{judged}\nall of them are the same, byte for byte")
    table = Table("record", "after", "what", "written", "rebuilt", box=None, header_style="bold")
    for difference in found.differences[:_SHOWN_DIFFERENCES]:
        after = f"{difference.at - row.created_at:,.0f} s"
        table.add_row(str(difference.seq), after, difference.what, difference.written[:60], difference.rebuilt[:60])
    return Group(Text(f"{head}\n{judged}\n{len(found.differences):,} differ"), table)


def _rehearsed(found: Rehearsal, rate: float) -> RenderableType:
    state = found.state.value.replace("_", " ")
    table = Table("after", "state", "weight", "why", box=None, header_style="bold")
    for moment in found.moments:
        place = f"step {moment.step}" if moment.state.value == "step" else moment.state.value.replace("_", " ")
        table.add_row(f"{moment.after_s:,.0f} s", place, f"{moment.weight_bp / 100:g} %", Text(moment.reason))
    words = [
        f"{state} after {found.seconds:,.0f} s at {rate:,.1f} requests/s; "
        f"the candidate had {found.exposed:,} requests, {found.failed:,} failed"
    ]
    words += [f"still waits for: {found.waiting_for}"] if found.waiting_for else []
    words += [f"taken for granted: {'; '.join(found.assumed)}"] if found.assumed else []
    return Group(table, Text("\n" + "\n".join(words)))


def _foreseen(outlook: Sequence[StepForecast]) -> RenderableType:
    table = Table("step", "weight", "forecast", box=None, header_style="bold")
    for step in outlook:
        for index, row in enumerate(step.forecast.rows):
            first = index == 0
            place = (step.name.removeprefix("step "), f"{step.weight_bp / 100:g} %") if first else ("", "")
            table.add_row(*place, Text(row.words))
    warnings = [f"warning, {step.name}: {words}" for step in outlook for words in step.forecast.warnings]
    return Group(table, Text("\n".join(["", *warnings]))) if warnings else table
