"""How noisy two equal arms are: settings for the judge from a stretch of history of stable alone.

Stable's replicas (or requests) are split into two halves, A and B, over three hours or more, better a day; whatever
differs between the halves is noise that the judge must not take for harm. Used by whoever has the history: the
simulation bench now, evidence sources that keep one later.
"""

from __future__ import annotations

import math

import numpy as np

from rollout.judge.dispersion import Calibration
from rollout.judge.evalues import FloatArray

WINDOW_S = 10.0
"""Length of the windows in the arrays below."""
_LONG = (6, 30)
"""Windows in a minute and in five: swings that last between them show most in the one or the other."""
_PRIOR_VARIANCE, _PRIOR_RATIO = 5.0, 1.15
_LARGEST_SCALE = 10.0
_MIN_LONG_VARIANCE, _MIN_LONG_WINDOWS = 5.0, 10

GRID = 1.05
"""Latency tolerances are powers of this: 5 %, 10 %, 16 %, ..."""
_NOISE_MULTIPLE = 3.0


def calibrate_errors(bad_a: FloatArray, n_a: FloatArray, bad_b: FloatArray, n_b: FloatArray) -> Calibration:
    """Over-dispersion of errors between two halves of stable; counts per window of `WINDOW_S`, in order of time."""
    halves = (bad_a, n_a, bad_b, n_b)
    squares, variances = _excess(*halves)
    weight = float(variances.sum())
    ratio = float(squares.sum()) / weight if weight else 1.0
    scale = (_PRIOR_VARIANCE * _PRIOR_RATIO + weight * ratio) / (_PRIOR_VARIANCE + weight)
    slope = 0.0
    for windows in _LONG:
        whole = len(bad_a) // windows * windows
        squares, variances = _excess(*(part[:whole].reshape(-1, windows).sum(axis=1) for part in halves))
        enough = variances > _MIN_LONG_VARIANCE
        if enough.sum() >= _MIN_LONG_WINDOWS:
            # Each window by itself: in sums, a few bursts that both halves share would hide how the halves differ.
            excess = (squares[enough] / variances[enough] - ratio) / variances[enough]
            slope = max(slope, float(excess.mean()))
    return Calibration(scale=float(np.clip(scale, 1.0, _LARGEST_SCALE)), slope=slope)


def _excess(bad_a: FloatArray, n_a: FloatArray, bad_b: FloatArray, n_b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per window with requests in both halves and an error: A's excess of errors, squared, and its Poisson variance."""
    used = (n_a > 0) & (n_b > 0) & (bad_a + bad_b > 0)
    bad_a, n_a, bad_b, n_b = bad_a[used], n_a[used], bad_b[used], n_b[used]
    rate = (bad_a + bad_b) / (n_a + n_b)
    excess: FloatArray = bad_a - n_a * rate
    variance: FloatArray = n_a * n_b * rate / (n_a + n_b)
    return np.square(excess), variance


def calibrate_latency(counts_a: FloatArray, counts_b: FloatArray, edges_us: tuple[int, ...]) -> float:
    """Least useful latency tolerance: three times the noise of the medians of two halves of stable.

    Counts per bucket (columns) and window of some minutes (rows). What sampling explains is taken off first: it
    shrinks with traffic, and the test allows for it already.
    """
    log_edges = np.log(np.array([edges_us[0] / GRID, *edges_us, edges_us[-1] * GRID]))
    differences, sampling = [], []
    for row_a, row_b in zip(counts_a, counts_b, strict=True):
        if min(row_a.sum(), row_b.sum()) < 50:
            continue
        medians = [_log_quantile(row, 0.5, log_edges) for row in (row_a, row_b)]
        differences.append(medians[0] - medians[1])
        sampling.append(sum(_median_variance(row, log_edges) for row in (row_a, row_b)))
    if len(differences) < 5:
        return GRID - 1.0
    noise = math.sqrt(max(0.0, float(np.mean(np.square(differences))) - float(np.mean(sampling))))
    # A quarter of a power is within what a few hours of history can tell; rounding it up would cost real power.
    buckets = math.ceil(math.log1p(_NOISE_MULTIPLE * noise) / math.log(GRID) - 0.25)
    return float(GRID ** max(buckets, 1) - 1.0)


def _log_quantile(counts: FloatArray, share: float, log_edges: FloatArray) -> float:
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    return float(np.interp(share, below, log_edges))


def _median_variance(counts: FloatArray, log_edges: FloatArray) -> float:
    half = 0.5 / math.sqrt(float(counts.sum()))
    width = _log_quantile(counts, 0.5 + half, log_edges) - _log_quantile(counts, 0.5 - half, log_edges)
    return width**2 / 4.0
