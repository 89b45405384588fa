"""E-values of one tick, in logs (nats): the factors by which evidence grows. Used by every metric of the judge.

An e-value is a statistic f >= 0 whose mean is at most 1 while the null hypothesis holds; a product of e-values over
ticks may be looked at after every tick (Ville: P(sup product >= 1/alpha) <= alpha). All functions broadcast, accept
fractional counts, and return 0 (no evidence) where an arm has no requests.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = FloatArray | float


def two_by_two(
    bad_canary: Numbers,
    n_canary: Numbers,
    bad_stable: Numbers,
    n_stable: Numbers,
    theta_canary: Numbers,
    theta_stable: Numbers,
    thinning: Numbers = 1.0,
) -> FloatArray:
    """Log e-value against "canary's bad rate, times `thinning`, equals stable's", whatever that common rate is.

    Points at rates `theta_canary` (after thinning) and `theta_stable`, which must be fixed before the tick is seen.
    One-sided by monotonicity: with theta_canary > theta_stable it is an e-value of every smaller canary rate as well,
    with theta_canary < theta_stable of every larger one. A wrong theta costs power, never validity.

    `thinning` = 1/ratio makes the null "canary's rate is `ratio` times stable's": each bad canary answer counts as bad
    with that probability, and the factor is averaged over the coin instead of tossing it.
    Source: Turner, Ly, Grunwald, JSPI 230:106116 (2024), eq. 2-4.
    """
    theta_null = (n_canary * theta_canary + n_stable * theta_stable) / (n_canary + n_stable)
    good_factor = (1.0 - theta_canary) / (1.0 - theta_null)
    bad_factor = thinning * (theta_canary / theta_null) + (1.0 - thinning) * good_factor
    result: FloatArray = (
        bad_canary * np.log(bad_factor)
        + (n_canary - bad_canary) * np.log(good_factor)
        + bad_stable * np.log(theta_stable / theta_null)
        + (n_stable - bad_stable) * np.log((1.0 - theta_stable) / (1.0 - theta_null))
    )
    return result


def rate_ratio(
    bad_canary: Numbers, n_canary: Numbers, bad_stable: Numbers, n_stable: Numbers, ratio: Numbers, alternative: Numbers
) -> FloatArray:
    """Log e-value against "canary's error rate <= `ratio` x stable's", pointing at `alternative` > `ratio`.

    With `alternative` < `ratio` it is one against "canary's error rate >= `ratio` x stable's".

    The Poisson form of the conditional test: it needs no baseline rate, which may jump between ticks. Exact for
    binomial counts: with a = (r/ratio)(d0/d1) and b = d0/d1, (1+p_c(a-1))^n_c (1+p_s(b-1))^n_s
    <= exp(n_c p_c(a-1) + n_s p_s(b-1)), which is 1 at p_c = ratio p_s and less
    beyond it, on the null's side.
    """
    exposure = (ratio * n_canary + n_stable) / (alternative * n_canary + n_stable)
    result: FloatArray = bad_canary * np.log(alternative / ratio) + (bad_canary + bad_stable) * np.log(exposure)
    return result


def rate_against(bad: Numbers, n: Numbers, alternative: Numbers, null: Numbers) -> FloatArray:
    """Log likelihood ratio of a Bernoulli rate `alternative` against `null`.

    An e-value of every rate at or below `null` when alternative > null, at or above it when alternative < null.
    """
    result: FloatArray = bad * np.log(alternative / null) + (n - bad) * np.log((1.0 - alternative) / (1.0 - null))
    return result


def log_sum_exp(values: FloatArray) -> FloatArray:
    """log(sum(exp(values))) over the last axis, without overflow."""
    top = values.max(axis=-1)
    result: FloatArray = top + np.log(np.exp(values - top[..., None]).sum(axis=-1))
    return result
