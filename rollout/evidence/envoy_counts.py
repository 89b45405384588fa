"""What Envoy counts of predictions, shared by its configuration and by the reader: names, and histogram limits.

Envoy keeps a histogram in bins of two significant digits and, for an edge, counts the whole bin that holds it. So a
limit is exact only where a bin ends, and is configured as the bin below it: 990 counts what took less than 1000.
"""

from __future__ import annotations

from collections.abc import Iterator

PREFIX = "penstock"
REQUESTS = "requests"
LATENCY = "latency"

GROWTH = 1.05
"""The judge moves thresholds by whole buckets; 5 % is the smallest margin that it asks for."""

LOWEST_US = 100
HIGHEST_US = 60_000_000


def latency_limits_us() -> tuple[int, ...]:
    """Exclusive upper limits of the buckets, microseconds, from 100 us to 60 s, about 5 % apart where bins allow it."""
    return tuple(_limits())


def envoy_edge(limit: int) -> int:
    """The edge to configure in Envoy so that it counts values below `limit`."""
    return limit - _bin_width(limit - 1)


def limit_of(edge: int) -> int:
    """The exclusive limit of what Envoy counts for a configured edge."""
    return edge + _bin_width(edge)


def _limits() -> Iterator[int]:
    limit = LOWEST_US
    while limit < HIGHEST_US:
        yield limit
        width = _bin_width(limit)
        # Not past a power of ten, where the bins become ten times as wide.
        limit = min(max(limit + width, round(limit * GROWTH / width) * width), int(10 ** len(str(limit))))
    yield HIGHEST_US


def _bin_width(value: int) -> int:
    """Width of the bin that holds `value`: 1 below 100, 10 from 100 to 999, 100 from 1000 to 9999."""
    return int(10 ** max(0, len(str(value)) - 2))
