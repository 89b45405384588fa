"""Latencies in fixed buckets: constant memory, mergeable over seconds and processes, at most 1.6 % off.

The buckets are HdrHistogram's with one unit of 1 µs and 64 sub-buckets: values below 128 µs are counted exactly, above
that each doubling is cut into 64 equal parts. Used by `loadtest.tally`; knows nothing of requests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

SUB_BUCKET_BITS = 6
_SUB_BUCKETS = 1 << SUB_BUCKET_BITS


def bucket_of(value_us: int) -> int:
    """The bucket that counts a value of at least 0 microseconds."""
    shift = max(0, value_us.bit_length() - SUB_BUCKET_BITS - 1)
    return shift * _SUB_BUCKETS + (value_us >> shift)


def upper_edge_us(bucket: int) -> int:
    """The largest value that the bucket counts."""
    shift = max(0, bucket // _SUB_BUCKETS - 1)
    return ((bucket - shift * _SUB_BUCKETS + 1) << shift) - 1


class Histogram:
    """How often each latency was seen."""

    __slots__ = ("_counts",)

    def __init__(self, pairs: Iterable[Iterable[int]] = ()) -> None:
        self._counts: Counter[int] = Counter()
        for bucket, count in pairs:
            self._counts[bucket] += count

    def record(self, latency_us: float) -> None:
        self._counts[bucket_of(max(0, math.ceil(latency_us)))] += 1

    def merge(self, other: Histogram) -> None:
        self._counts.update(other._counts)

    @property
    def total(self) -> int:
        return self._counts.total()

    def quantile_us(self, q: float) -> float | None:
        """The upper edge of the bucket that holds quantile `q` (0..1, nearest rank); None of an empty histogram."""
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(q * total))
        for bucket, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return float(upper_edge_us(bucket))
        raise AssertionError("the ranks of all buckets add up to the total")

    def quantile_ms(self, q: float) -> float | None:
        value = self.quantile_us(q)
        return None if value is None else value / 1000

    def share_above(self, limit_us: float) -> float:
        """The share (0..1) of values in buckets that lie wholly above the limit."""
        above = sum(count for bucket, count in self._counts.items() if upper_edge_us(bucket) > limit_us)
        return above / self.total if self._counts else 0.0

    def pairs(self) -> list[list[int]]:
        """[bucket, count] of every bucket that is not empty, in order: what `Histogram(pairs)` takes."""
        return [[bucket, count] for bucket, count in sorted(self._counts.items())]


def merged(histograms: Iterable[Histogram]) -> Histogram:
    whole = Histogram()
    for histogram in histograms:
        whole.merge(histogram)
    return whole
