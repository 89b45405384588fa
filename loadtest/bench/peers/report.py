"""The result as a page of tables and a chart: what each peer costs, beside Penstock, and where it is better."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadtest.bench.gateway.calls import Wire
from loadtest.bench.gateway.report import machine, software
from loadtest.bench.peers.results import Result, Row
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
_PASSES, _RUNS = "passes on to a server", "runs the model itself"
_COLOURS = {OURS: "#0b7285", _PASSES: "#868e96", _RUNS: "#ced4da"}
_GRPC = (Form.TYPED_GRPC, Form.INFER_GRPC)
_JSON = (Form.TYPED_JSON, Form.INFER_JSON, Form.PLAIN_JSON)


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
            when=_when(results),
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
load were counted by status and size. The server behind the fronts refuses what is not the prediction that was sent, so
that a request passed on as it came is a failure.

- Measured {when}; {machine}; load average {load} at the end.
- {software}
- Each front has one core; h2load, and the stub server behind those that have one, share the other. CPU is user and
  system time from `/proc` of every process that the front has started; the best of the turns counts.
- "runs the model" marks peers that answer by themselves; the others pass on to a server that answers at once. Triton is
  measured with its Python backend.
- Penstock is as `penstock up` configures it, with the access log stream for feedback; it checks every count and type.
- Trust ratios; microseconds belong to the machine.
"""


def _when(results: Sequence[Result]) -> str:
    """From the first peer to the last; a run that was taken up again may have a gap in between."""
    begun, ended = (pick(result.measured_at for result in results) for pick in (min, max))
    return begun if begun == ended else f"from {begun} to {ended}"


def _goals(results: Sequence[Result]) -> Iterator[str]:
    yield from _goal(results, "typed gRPC", _GRPC, Form.TYPED_GRPC, Wire.GRPC, GRPC_GOAL)
    # The fronts in Python speak HTTP/1.1 alone, so that is what JSON is judged by.
    yield from _goal(results, "typed JSON over HTTP/1.1", _JSON, Form.TYPED_JSON, Wire.JSON_H1, JSON_GOAL)
    own = _cheapest(results, [OURS], (Form.TYPED_JSON,), Wire.JSON_H2)
    peer = _cheapest(results, PYTHON_FRONTS, _JSON, Wire.JSON_H1)
    if own and peer:
        yield (
            f"- typed JSON over HTTP/2, 4 floats: {own[1]:,.0f} us, so **{peer[1] / own[1]:.1f} times** for callers "
            f"that speak it, which {peer[0]} does not."
        )


def _goal(
    results: Sequence[Result], words: str, forms: Sequence[Form], ours: Form, wire: Wire, goal: float
) -> Iterator[str]:
    own, peer = _cheapest(results, [OURS], (ours,), wire), _cheapest(results, PYTHON_FRONTS, forms, wire)
    if own and peer:
        ratio = peer[1] / own[1]
        met = "met" if ratio >= goal else "missed"
        yield (
            f"- {words}, 4 floats: {own[1]:,.0f} us; the cheapest front in Python is {peer[0]} with "
            f"{peer[1]:,.0f} us, **{ratio:.1f} times** as much (goal: at least {goal:g}; {met})."
        )


def _cheapest(
    results: Sequence[Result], names: Sequence[str], forms: Sequence[Form], wire: Wire
) -> tuple[str, float] | None:
    found = [
        (result.name, row.figures.cpu_us)
        for result in results
        if result.name in names
        for row in result.rows
        if row.figures and row.size is Size.SMALL and row.form in forms and row.wire is wire
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
        lines += [f"| {_name(result)} | {row.words} | {_cells(row)} |" for row in result.rows if row.size is size]
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
    """Where somebody is cheaper than Penstock at the same size and over the same protocol: said plainly."""
    found = [
        line
        for size in Size
        for kind, wire in (("gRPC", Wire.GRPC), ("HTTP/1.1", Wire.JSON_H1))
        for line in _cheaper(results, size, kind, wire)
    ]
    return "\n".join(["## Where a peer is cheaper", "", *(found or ["Nowhere in this run."]), ""])


def _cheaper(results: Sequence[Result], size: Size, kind: str, wire: Wire) -> Iterator[str]:
    rows = [
        (x.name, r.words, r.figures.cpu_us)
        for x in results
        for r in x.rows
        if r.figures and r.size is size and r.wire is wire
    ]
    ours = min((us for name, _, us in rows if name == OURS), default=0.0)
    for name, words, us in rows:
        if name != OURS and us < ours:
            yield f"- {size}, {kind}: {name} ({words}) needs {us / ours:.2f} of Penstock's CPU."


def chart(results: Sequence[Result], path: Path) -> None:
    """CPU per request of the small prediction, one bar per peer and form, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot
    from matplotlib.patches import Patch
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    bars = sorted(
        (row.figures.cpu_us, f"{result.name}: {row.words}", _colour(result))
        for result in results
        for row in result.rows
        if row.figures and row.size is Size.SMALL
    )
    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(bars) + 1.6), layout="constrained")
    us, names, colours = [bar[0] for bar in bars], [bar[1] for bar in bars], [bar[2] for bar in bars]
    drawn = axes.barh(names, us, color=colours)
    axes.bar_label(drawn, labels=[f"{value:,.0f}" for value in us], padding=4, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(10, max(us, default=10) * 2)
    axes.xaxis.set_major_locator(FixedLocator([10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="x", color="#dee2e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("microseconds of CPU, logarithmic")
    axes.set_title("CPU per request of the whole front: 4 floats, 32 in flight", loc="left", fontsize=11)
    axes.legend(
        handles=[Patch(color=colour, label=words) for words, colour in _COLOURS.items()],
        loc="upper right",
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8, length=0)
    figure.savefig(path)
    pyplot.close(figure)


def _colour(result: Result) -> str:
    kind = OURS if result.name == OURS else _RUNS if result.runs_model else _PASSES
    return _COLOURS[kind]
