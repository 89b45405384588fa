"""The live view of a rollout: weights, traffic per version, evidence towards each decision, time left.

On a terminal it redraws; elsewhere it prints a line when something changed. `penstock rollout watch` and
`penstock deploy --wait` use it. It draws what the operators' API says (`rollout.report.RolloutStatus`), nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.cli.session import ExitCode, Failure, Session, json_lines

FULL = 10_000
BAR = 30
"""Characters of a bar."""

STILL_S = 15.0
"""Where no terminal is: a line at least this often while nothing changes, so that a log shows it lives."""

_STATE_STYLE = {
    "promoted": "bold green",
    "rolled_back": "bold red",
    "rolling_back": "bold red",
    "failed": "bold red",
    "aborted": "bold yellow",
    "paused": "bold yellow",
    "gate": "bold yellow",
}


def follow(session: Session, rollout: int) -> Mapping[str, Any]:
    """Show a rollout until it is decided; its last status."""
    last: Mapping[str, Any] | None = None
    path = f"/api/v1/rollouts/{rollout}/watch"
    with session.operators(timeout_s=None) as client, client.stream("GET", path) as answer:
        for status in _shown(session, json_lines(answer)):
            last = status
    if last is None or not last["final"]:
        raise Failure("Penstock closed the connection; `penstock rollout watch` goes on watching")
    return last


def finish(session: Session, status: Mapping[str, Any]) -> None:
    """End the command as the rollout ended: nothing for promoted, a Failure for everything else."""
    if not session.as_json and not session.interactive:
        session.out.print(verdict(status))
    match status["state"]:
        case "promoted":
            return
        case "rolled_back":
            raise Failure(_end(status), exit_code=ExitCode.ROLLED_BACK)
        case _:
            raise Failure(_end(status))


def _end(status: Mapping[str, Any]) -> str:
    words = {"rolled_back": "rolled back"}.get(status["state"], status["state"])
    return f"rollout {status['rollout_id']} of {status['model']} to version {status['candidate']} is {words}: " + (
        status["reason"] or "no reason given"
    )


def verdict(status: Mapping[str, Any]) -> Text:
    """The end of a rollout in one line."""
    state = str(status["state"])
    return Text.assemble((state.replace("_", " "), _STATE_STYLE.get(state, "bold")), f"  {status['reason']}")


def _shown(session: Session, statuses: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    if session.as_json:
        for status in statuses:
            session.print_json(status)
            yield status
    elif session.interactive:
        with Live(console=session.out, auto_refresh=False) as live:
            for status in statuses:
                live.update(view(status), refresh=True)
                yield status
    else:
        yield from _as_lines(session, statuses)


def _as_lines(session: Session, statuses: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    told: tuple[object, ...] = ()
    told_at = 0.0
    for status in statuses:
        key = (status["state"], status["step"], status["weight_bp"], status["withheld"], status["overdue"])
        now = status["since"] + status["in_state_s"]
        if key != told or now - told_at >= STILL_S:
            told, told_at = key, now
            session.out.print(line(status))
        yield status


def line(status: Mapping[str, Any]) -> Text:
    """A status in one line."""
    arms = ", ".join(
        f"v{arm['version']} {arm['requests']:,} requests {arm['errors']:,} errors"
        + (f" p99 {_milliseconds(arm['p99_us'])}" if arm["p99_us"] is not None else "")
        + (f" accuracy {arm['accuracy']:.1%}" if arm["accuracy"] is not None else "")
        for arm in status["versions"]
    )
    why = status["waiting_for"] or status["reason"]
    text = f"{status['model']} v{status['candidate']} {_place(status)} {_share(status['weight_bp'])}"
    foreseen = "" if status["forecast"] is None else f" | {_foreseen(status['forecast']['pass_s'])}"
    return Text(f"{text} | {arms} | {why}{foreseen}" if arms else f"{text} | {why}{foreseen}")


def _foreseen(pass_s: float | None) -> str:
    return "cannot pass at this traffic" if pass_s is None else f"may pass in about {_duration(pass_s)}"


def view(status: Mapping[str, Any]) -> RenderableType:
    """A status as a panel."""
    parts: list[RenderableType] = [_weights(status), Text(), _arms(status)]
    if status["metrics"]:
        parts += [Text(), _evidence(status)]
    parts += [Text(), *_words(status)]
    title = Text.assemble(
        (f" {status['model']} ", "bold"),
        f"{status['stable']} → {status['candidate']}  ",
        (_place(status), _STATE_STYLE.get(status["state"], "bold cyan")),
        f"  rollout {status['rollout_id']} ",
    )
    return Panel(Group(*parts), title=title, title_align="left", padding=(1, 2))


def _weights(status: Mapping[str, Any]) -> RenderableType:
    weight = status["weight_bp"]
    table = Table.grid(padding=(0, 2))
    for version, share, style in (
        (status["stable"], FULL - weight, "green"),
        (status["candidate"], weight, "yellow"),
    ):
        table.add_row(f"version {version}", _bar(share / FULL, style), f"{_share(share):>7}")
    steps = "  ".join(
        f"[{_share(step)}]" if index + 1 == status["step"] else _share(step)
        for index, step in enumerate(status["step_weights_bp"])
    )
    if status["mirror_bp"]:
        table.add_row("copied to both", _bar(status["mirror_bp"] / FULL, "cyan"), f"{_share(status['mirror_bp']):>7}")
    table.add_row("steps", Text(steps, "dim"), "")
    return table


def _arms(status: Mapping[str, Any]) -> RenderableType:
    table = Table("", box=None, header_style="dim", padding=(0, 2))
    for heading in ("requests", "errors", "error rate", "p50", "p99", "labels", "accuracy"):
        table.add_column(heading, justify="right")
    for arm in status["versions"]:
        table.add_row(
            f"version {arm['version']}",
            f"{arm['requests']:,}",
            f"{arm['errors']:,}",
            _percent(arm["error_share"], 2),
            _milliseconds(arm["p50_us"]),
            _milliseconds(arm["p99_us"]),
            f"{arm['labelled']:,}",
            _percent(arm["accuracy"], 1),
        )
    return table


def _evidence(status: Mapping[str, Any]) -> RenderableType:
    table = Table("evidence", "towards advance", "towards rollback", "", box=None, header_style="dim", padding=(0, 2))
    for metric in status["metrics"]:
        table.add_row(
            metric["metric"],
            _bar(metric["toward_advance"], "green", BAR // 2),
            _bar(metric["toward_rollback"], "red", BAR // 2),
            Text(metric["missing"] or metric["harm"], "dim"),
        )
    return table


def _words(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield _wrapped(status["waiting_for"] or status["reason"] or "starting")
    if status["forecast"] is not None:
        yield _wrapped(f"forecast: {status['forecast']['words']}")
    for warning in warnings(status):
        yield _wrapped(f"warning: {warning}", "yellow")
    if status["withheld"]:
        yield Text("the candidate is not ready: it gets no traffic until it is", "yellow")
    for trouble in status["troubles"]:
        yield Text(f"{trouble['where']}: {trouble['message']} ({trouble['attempts']} attempts)", "yellow")
    times = [f"{_duration(status['in_state_s'])} in this state"]
    if status["deadline_left_s"] is not None:
        times.append(f"{_duration(status['deadline_left_s'])} to the deadline")
    if status["gate_left_s"] is not None:
        times.append(f"the gate opens in {_duration(status['gate_left_s'])}")
    if status["undo_left_s"] is not None:
        times.append(f"undo possible for {_duration(status['undo_left_s'])}")
    if status["verbs"]:
        times.append("possible now: " + ", ".join(status["verbs"]))
    yield Text("; ".join(times), "dim")


def expectation(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What may be expected of a rollout that was just started, a line each."""
    outlook = status["outlook"]
    if outlook is None:
        return
    if outlook["steps"]:
        yield Text(f"traffic: {outlook['traffic']}")
        table = Table.grid(padding=(0, 2))
        for step in outlook["steps"]:
            share = f"  {_share(step['weight_bp'])}{'' if step['step'] else ' mirrored'}"
            table.add_row(Text(share, "dim"), Text(step["forecast"]["words"], "dim"))
        yield table
    for warning in outlook["warnings"]:
        yield Text(f"warning: {warning}", "yellow")


def warnings(status: Mapping[str, Any]) -> list[str]:
    """What this traffic cannot decide in time: of the present step, or, before the first, of every one."""
    if status["forecast"] is not None:
        return list(status["forecast"]["warnings"])
    begun = status["step"] > 0 or status["final"]
    return [] if begun or status["outlook"] is None else list(status["outlook"]["warnings"])


def _wrapped(words: str, style: str = "") -> Text:
    """Long sentences on several lines, also in a panel, whatever the console does elsewhere."""
    return Text(words, style, no_wrap=False, overflow="fold")


def _place(status: Mapping[str, Any]) -> str:
    state = str(status["state"]).replace("_", " ")
    return f"step {status['step']} of {status['steps']}" if state == "step" else state


def _bar(share: float, style: str, width: int = BAR) -> Text:
    filled = round(min(1.0, max(0.0, share)) * width)
    return Text.assemble(("█" * filled, style), ("░" * (width - filled), "dim"))


def _share(basis_points: int) -> str:
    return f"{basis_points / 100:g} %"


def _percent(share: float | None, digits: int) -> str:
    return "-" if share is None else f"{share * 100:.{digits}f} %"


def _milliseconds(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1000:.3g} ms"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
