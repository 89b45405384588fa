"""Cost per request as a formula: CPU = fixed + per byte of the request's body + per further row of a batch.

Least squares of the relative error, because a point at 5 ms must not outweigh one at 70 us. Coefficients are not
negative: what the points cannot tell apart from nothing is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True, slots=True)
class Point:
    """A request of `body_bytes` with `rows` rows was measured to cost `us` microseconds of CPU."""

    body_bytes: int
    rows: int
    us: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Microseconds of CPU: per request, per byte of its body, and per row after the first."""

    request_us: float
    byte_us: float
    row_us: float

    def us(self, body_bytes: float, rows: float = 1) -> float:
        """CPU of one request, microseconds."""
        return self.request_us + self.byte_us * body_bytes + self.row_us * (rows - 1)

    def cores(self, requests_per_s: float, body_bytes: float, rows: float = 1, *, utilisation: float) -> float:
        """Cores that carry such requests while they are busy for the share `utilisation` of the time."""
        return requests_per_s * self.us(body_bytes, rows) / 1e6 / utilisation

    def residual(self, point: Point) -> float:
        """By how much the formula is off at a point, as a share of what was measured; above 0 it says too much."""
        return self.us(point.body_bytes, point.rows) / point.us - 1


def fit(points: Sequence[Point]) -> Fit:
    """The formula that is off least, over three points or more of different bodies and rows."""
    terms = np.array([(1.0, point.body_bytes, point.rows - 1) for point in points])
    measured = np.array([point.us for point in points])
    scale = terms.max(axis=0).clip(min=1.0)  # bytes are a million times rows: alike in size, they are solved well
    coefficients, _ = nnls(terms / scale / measured[:, None], np.ones(len(points)))
    return Fit(*(float(value) for value in coefficients / scale))
