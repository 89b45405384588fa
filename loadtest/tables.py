"""The CSV files of a load test: totals by protocol and version, and every second by protocol and version. Pure."""

from __future__ import annotations

import csv
import io

from loadtest.figures import Figures
from loadtest.histogram import Histogram
from loadtest.objectives import PERCENTILES
from loadtest.record import Record


def summary_csv(figures: Figures) -> str:
    """One row for each protocol and version, the last for all of them. Latencies in milliseconds."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["group", "requests", "failed", "answered_per_s", *(f"p{p:g}_ms" for p in PERCENTILES)])
    seconds = figures.record.seconds or 1.0
    rows = [(group.name, group.requests, group.failed, group.latencies) for group in figures.by_protocol_and_version()]
    for name, requests, failed, latencies in [*rows, ("all", figures.requests, figures.failed, figures.latencies)]:
        answered = (requests - failed) / seconds
        table.writerow([name, requests, failed, f"{answered:.2f}", *_latencies(latencies)])
    return out.getvalue()


def seconds_csv(record: Record) -> str:
    """One row for each second in which requests were due, protocol and version. Latencies in milliseconds."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["second", "protocol", "version", "requests", "failed", *(f"p{p:g}_ms" for p in PERCENTILES)])
    for (second, protocol, version), cell in sorted(record.tally.cells.items()):
        table.writerow([second, protocol, version, cell.requests, cell.failed, *_latencies(cell.latencies)])
    return out.getvalue()


def _latencies(histogram: Histogram) -> list[str]:
    values = (histogram.quantile_ms(percentile / 100) for percentile in PERCENTILES)
    return ["" if value is None else f"{value:.3f}" for value in values]
