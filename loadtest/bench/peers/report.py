"""The result as a page of tables and a chart: what each peer costs, beside Penstock, and where it is better."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtest.bench.gateway.report import machine, software
from loadtest.bench.peers.measure import Figures
from loadtest.bench.peers.work import Form, Size

OURS = "Penstock"
GRPC_GOAL, JSON_GOAL = 4.0, 3.0
"""At least this many times cheaper than the cheapest front written in Python."""

PYTHON_FRONTS = (
    "grpc.aio pass-through",
    "FastAPI + tritonclient",
    "MLServer",
    "KServe",
    "BentoML",
    "LitServe",
    "Ray Serve",
)
_GRPC = (Form.TYPED_GRPC, Form.INFER_GRPC)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request; `figures` None when it did not work, and why."""

    name: str
    form: Form
    size: Size
    figures: Figures | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One peer. `memory_bytes` is after all its load; `trouble` when it was not measured at all."""

    name: str
    version: str
    runs_model: bool
    ready_s: float = 0.0
    memory_bytes: int = 0
    rows: tuple[Row, ...] = ()
    trouble: str = ""


def page(results: Sequence[Result], command: str) -> str:
    """docs/benchmarks/peers.md."""
    parts = [_HEAD.format(command=command, goals="\n".join(_goals(results)))]
    parts += [_table(results, size) for size in Size]
    parts.append(_starts(results))
    parts.append(_better(results))
    requests = sum(row.figures.requests for result in results for row in result.rows if row.figures)
    failed = sum(row.figures.failed for result in results for row in result.rows if row.figures)
    parts.append(
        _FOOT.format(
            requests=f"{requests:,}",
            failed=f"{failed:,}",
            when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            machine=machine(),
            load=f"{os.getloadavg()[0]:.1f}",
            software=software(),
        )
    )
    return "\n".join(parts)


_HEAD = """# Penstock beside its peers

What one prediction costs through each, in one run, on one machine: CPU of the whole front (all its processes) per
request with 32 in flight, latency with 1 and with 32 in flight, throughput on one core. Written by
`{command}`; do not edit.

![CPU per request](peers.svg)

{goals}
"""

_FOOT = """{requests} requests, {failed} failed. Every answer was decoded and compared before timing, and answers under
load were counted by status and size.

- {when}; {machine}; load average {load} at the end.
- {software}
- Each front has one core; h2load, and the stub server behind those that have one, share the other. CPU is user and
  system time from `/proc` of every process that the front has started; the best of the turns counts.
- "runs the model" marks peers that answer by themselves; the others pass on to a server that answers at once. Triton is
  measured with its Python backend.
- Penstock is as `penstock up` configures it, with the access log stream for feedback; it checks every count and type.
- Trust ratios; microseconds belong to the machine.
"""


def _goals(results: Sequence[Result]) -> Iterator[str]:
    for words, forms, ours, goal in (
        ("typed gRPC", _GRPC, Form.TYPED_GRPC, GRPC_GOAL),
        ("typed JSON", (Form.TYPED_JSON, Form.INFER_JSON, Form.PLAIN_JSON), Form.TYPED_JSON, JSON_GOAL),
    ):
        own = _cheapest(results, [OURS], (ours,))
        peer = _cheapest(results, PYTHON_FRONTS, forms)
        if own and peer:
            ratio = peer[1] / own[1]
            met = "met" if ratio >= goal else "missed"
            yield (
                f"- {words}, 4 floats: {own[1]:,.0f} us; the cheapest front in Python is {peer[0]} with "
                f"{peer[1]:,.0f} us, **{ratio:.1f} times** as much (goal: at least {goal:g}; {met})."
            )


def _cheapest(results: Sequence[Result], names: Sequence[str], forms: Sequence[Form]) -> tuple[str, float] | None:
    found = [
        (result.name, row.figures.cpu_us)
        for result in results
        if result.name in names
        for row in result.rows
        if row.figures and row.size is Size.SMALL and row.form in forms
    ]
    return min(found, key=lambda each: each[1], default=None)


def _table(results: Sequence[Result], size: Size) -> str:
    lines = [
        f"## {size}",
        "",
        "| | request | CPU us | p50 / p99 ms, 1 in flight | p50 / p99 ms, 32 in flight | per second |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        lines += [f"| {_name(result)} | {row.form} | {_cells(row)} |" for row in result.rows if row.size is size]
    return "\n".join([*lines, ""])


def _name(result: Result) -> str:
    return f"{result.name} (runs the model)" if result.runs_model else result.name


def _cells(row: Row) -> str:
    if row.figures is None:
        return f"did not work: {row.trouble[:160]} | | |"
    f = row.figures
    failed = f" ({f.failed} failed)" if f.failed else ""
    return (
        f"{f.cpu_us:,.0f} | {f.alone.p50:.2f} / {f.alone.p99:.2f} | {f.together.p50:.2f} / {f.together.p99:.2f} "
        f"| {f.per_second:,.0f}{failed}"
    )


def _starts(results: Sequence[Result]) -> str:
    lines = ["## Start and memory", "", "| | version | ready after | memory after all load |", "|---|---|---|---|"]
    for result in results:
        measured = f"{result.ready_s:.1f} s | {result.memory_bytes / 1e6:,.0f} MB"
        lines.append(
            f"| {result.name} | {result.version} | {result.trouble[:160] + ' |' if result.trouble else measured} |"
        )
    return "\n".join([*lines, ""])


def _better(results: Sequence[Result]) -> str:
    """Where somebody is cheaper than Penstock at the same size and kind of protocol: said plainly."""
    http = tuple(form for form in Form if form not in _GRPC)
    found = [
        line
        for size in Size
        for kind, forms in (("gRPC", _GRPC), ("HTTP", http))
        for line in _cheaper(results, size, kind, forms)
    ]
    return "\n".join(["## Where a peer is cheaper", "", *(found or ["Nowhere in this run."]), ""])


def _cheaper(results: Sequence[Result], size: Size, kind: str, forms: Sequence[Form]) -> Iterator[str]:
    rows = [
        (x.name, r.form, r.figures.cpu_us)
        for x in results
        for r in x.rows
        if r.figures and r.size is size and r.form in forms
    ]
    ours = min((us for name, _, us in rows if name == OURS), default=0.0)
    for name, form, us in rows:
        if name != OURS and us < ours:
            yield f"- {size}, {kind}: {name} ({form}) needs {us / ours:.2f} of Penstock's CPU."


def chart(results: Sequence[Result], path: Path) -> None:
    """CPU per request of the small prediction, one bar per peer and form, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot

    bars = sorted(
        (row.figures.cpu_us, f"{result.name}: {row.form}", result.name == OURS)
        for result in results
        for row in result.rows
        if row.figures and row.size is Size.SMALL
    )
    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(bars) + 1.2), layout="constrained")
    colours = ["#0b7285" if ours else "#adb5bd" for *_, ours in bars]
    drawn = axes.barh([name for _, name, _ in bars], [us for us, *_ in bars], color=colours)
    axes.bar_label(drawn, labels=[f" {us:,.0f}" for us, *_ in bars], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU per request, microseconds (logarithmic), 4 floats, 32 in flight")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)
    figure.savefig(path)
    pyplot.close(figure)
