"""The page's two charts, as SVG: cost of a request by size with its fit, and a control plane by size of its fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from loadtest.bench.capacity.fit import Fit, Point
from loadtest.bench.capacity.fleet import Fleet
from loadtest.bench.capacity.ladder import Protocol

_PANELS = ((Protocol.GRPC, Protocol.INFER), (Protocol.JSON_H2, Protocol.JSON_H1))
_COLOURS = {
    Protocol.GRPC: "#0b7285",
    Protocol.INFER: "#e8590c",
    Protocol.JSON_H2: "#0b7285",
    Protocol.JSON_H1: "#e8590c",
}


def cost_chart(measured: Mapping[Protocol, tuple[Fit, Sequence[Point]]], path: Path) -> None:
    """CPU per request against the body's size: points as measured, the fit as a line for one row."""
    figure, panels = _figure(2, sharey=True)
    for axes, protocols in zip(panels, _PANELS, strict=True):
        for protocol in protocols:
            fitted, points = measured[protocol]
            colour = _COLOURS[protocol]
            sizes = np.geomspace(min(p.body_bytes for p in points), max(p.body_bytes for p in points), 200)
            axes.plot(
                sizes,
                [fitted.us(size) for size in sizes],
                color=colour,
                linewidth=1.2,
                label=f"{protocol}, formula for one row",
            )
            for rows, face, what in ((False, colour, "one row"), (True, "white", "batches")):
                chosen = [p for p in points if (p.rows > 1) is rows]
                axes.plot(
                    [p.body_bytes for p in chosen],
                    [p.us for p in chosen],
                    linestyle="none",
                    marker="o",
                    markersize=6,
                    color=colour,
                    markerfacecolor=face,
                    label=f"{protocol}, {what}",
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("body of the request, bytes")
        axes.grid(which="major", color="#e9ecef")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    panels[0].set_ylabel("CPU of Envoy per request, us")
    # One core's worth on the other side, so that the chart is read either way.
    rate = panels[-1].secondary_yaxis("right", functions=(_per_second, _per_second))
    rate.set_ylabel("requests per second of one core")
    for axis in (panels[0].yaxis, rate.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter(NullFormatter())
    for axes in panels:
        axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.savefig(path)


def fleet_chart(fleets: Sequence[Fleet], path: Path) -> None:
    """How long changes take to reach all Envoys, and the control plane's CPU with a renewal each second."""
    figure, (times, cpu) = _figure(2)
    envoys = [fleet.envoys for fleet in fleets]
    times.plot(
        envoys, [fleet.one_more.seconds for fleet in fleets], marker="o", color="#0b7285", label="one more model"
    )
    times.plot(envoys, [fleet.weight.seconds for fleet in fleets], marker="o", color="#e8590c", label="weight change")
    times.set_title("until every Envoy has acknowledged", fontsize=10)
    times.set_ylabel("seconds")
    times.legend(frameon=False, fontsize=8)
    cpu.plot(envoys, [100 * fleet.heartbeat.control_s for fleet in fleets], marker="o", color="#0b7285")
    cpu.set_title("control plane with a renewal each second", fontsize=10)
    cpu.set_ylabel("CPU, % of a core")
    for axes in (times, cpu):
        axes.set_xlabel("Envoys")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.grid(color="#e9ecef")
    figure.savefig(path)


def _per_second(us: Any) -> Any:
    """Microseconds per request as requests per second, and back."""
    return 1e6 / np.maximum(us, 1e-9)


def _figure(panels: int, *, sharey: bool = False) -> tuple[Any, Any]:
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "penstock"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(10, 4.2), layout="constrained", sharey=sharey)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes
