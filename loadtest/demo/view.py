"""What the demo prints: phases, the live picture of a rollout, and the closing table.

On a terminal a rollout is drawn live; elsewhere (a pipe, CI) each change is one plain line. Used by
`loadtest.demo.run`; knows nothing of how the numbers were had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.operators import Rollout
from loadtest.results import Results

GOOD, BAD, DIM = "green", "red", "dim"
WAITING_LINE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the closing table. `users` is the share (0..1) of callers whom the version answered at least once."""

    version: int
    what: str
    verdict: str
    as_expected: bool
    reason: str
    seconds: float = 0.0
    users: float = 0.0
    requests: int = 0
    failed: int = 0


class View:
    """Everything the demo says goes through here."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = monotonic()

    def title(self, words: str) -> None:
        self.console.print()
        self.console.print(Text(words, style="bold"))

    def command(self, words: str) -> None:
        self.console.print(Text(f"  $ {words}", style="cyan"), soft_wrap=True)

    def done(self, words: str, note: str = "") -> None:
        self.console.print(Text.assemble(("  ok  ", GOOD), words, (f"  {note}" if note else "", DIM)))

    def note(self, words: str) -> None:
        self.console.print(Padding(Text(words, style=DIM), (0, 0, 0, 6), expand=False))

    def failure(self, words: str) -> None:
        self.console.print(Text.assemble(("  failed  ", f"bold {BAD}"), words))

    @contextmanager
    def waiting(self, words: str) -> Iterator[None]:
        """A spinner while something takes its time; nothing where nobody watches."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(f"  {words}"):
            yield

    @contextmanager
    def rollout(self) -> Iterator[RolloutView]:
        view = RolloutView(self.console, self._started)
        if not self.console.is_terminal:
            yield view
            return
        with Live(console=self.console, transient=True, auto_refresh=False) as live:
            view.live = live
            yield view

    def verdict(self, line: Line) -> None:
        style = GOOD if line.as_expected else BAD
        self.console.print(
            Text.assemble(
                ("  ok  " if line.as_expected else "  unexpected  ", style),
                f"version {line.version} was ",
                (line.verdict, "bold"),
                f" after {line.seconds:.0f} s",
            )
        )
        self.note(line.reason)

    def table(self, lines: list[Line]) -> None:
        table = Table(box=SIMPLE_HEAD, expand=True, show_lines=True, padding=(0, 1, 0, 0))
        table.add_column("version", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("why", ratio=1)
        for heading in ("seconds", "callers who\nsaw it", "requests", "failed"):
            table.add_column(heading, justify="right", no_wrap=True)
        for line in lines:
            table.add_row(
                f"v{line.version}",
                Text(line.verdict, style=GOOD if line.as_expected else BAD),
                line.reason,
                f"{line.seconds:.0f}" if line.seconds else "",
                f"{line.users:.0%}",
                f"{line.requests:,}",
                Text(f"{line.failed:,}", style=BAD if line.failed else ""),
            )
        self.title("What happened")
        self.console.print(table)

    def links(self, links: Mapping[str, str]) -> None:
        """Addresses, by what is there."""
        grid = Table.grid(padding=(0, 2))
        for name, url in links.items():
            grid.add_row(f"  {name}", Text(url, style="cyan"))
        self.console.print(grid)


class RolloutView:
    """One rollout while it runs. `live` is set on a terminal."""

    def __init__(self, console: Console, started: float) -> None:
        self.live: Live | None = None
        self._console = console
        self._started = started
        self._told = ("", 0)

    def show(self, rollout: Rollout, results: Results) -> None:
        if self.live is not None:
            self.live.update(_picture(rollout, results), refresh=True)
            return
        told = f"v{rollout.candidate} {rollout.state_words}"
        # The judge's reason to wait changes every second; a line now and then shows that it is alive.
        waited = int(rollout.in_state_s // WAITING_LINE_EVERY_S)
        if (told, waited) != self._told:
            changed, self._told = told != self._told[0], (told, waited)
            words = told if changed else f"      {rollout.waiting_for}"
            self._console.print(f"  {monotonic() - self._started:6.1f} s  {words}", soft_wrap=True)


def _picture(rollout: Rollout, results: Results) -> RenderableType:
    versions = Table.grid(padding=(0, 3))
    versions.add_column()
    for _ in range(6):
        versions.add_column(justify="right")
    versions.add_row("", "traffic", "requests", "failed", "wrong labels", "p50", "p99", style=DIM)
    for arm in rollout.arms:
        canary = arm.version == rollout.candidate
        weight = rollout.weight if canary else 1.0 - rollout.weight
        versions.add_row(
            Text(f"v{arm.version} {'candidate' if canary else 'stable'}", style="bold" if canary else ""),
            f"{weight:.0%}",
            f"{arm.requests:,}",
            Text(f"{arm.errors:,}", style=BAD if arm.errors else ""),
            _share(arm.wrong, arm.labelled),
            _milliseconds(arm.p50_us),
            _milliseconds(arm.p99_us),
        )
    evidence = Table.grid(padding=(0, 3))
    for metric in rollout.metrics:
        evidence.add_row(
            Text(metric.name, style=DIM),
            Text("safe", style=DIM),
            ProgressBar(total=1.0, completed=metric.toward_advance, width=24, complete_style=GOOD),
            Text("harm", style=DIM),
            ProgressBar(total=1.0, completed=metric.toward_rollback, width=24, complete_style=BAD),
        )
    seen = f"{results.requests:,} requests so far, {results.share_of_users(rollout.candidate):.0%} of callers met "
    return Panel(
        Group(
            versions,
            Text(),
            evidence,
            Text(),
            Text(rollout.waiting_for or rollout.reason, style=DIM),
            Text(f"{seen}v{rollout.candidate}", style=DIM),
        ),
        title=f"v{rollout.candidate} against v{rollout.stable} · {rollout.state_words} · {rollout.in_state_s:.0f} s",
        title_align="left",
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _milliseconds(us: float | None) -> str:
    return f"{us / 1000:.1f} ms" if us is not None else "-"
