"""Counts wait some seconds for the other arm; when a pair is complete depends on how many there are, not on what."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollout.judge.pairing import LONGEST_S, Pairing

REQUESTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60)


def pairs(requests: list[tuple[int, int]], bad: list[tuple[int, int]]) -> list[tuple[float, ...]]:
    """Per collection: canary's bad and all, stable's bad and all, seconds."""
    pairing = Pairing(1, 1)
    seen: list[tuple[float, ...]] = []

    def taken() -> tuple[float, ...]:
        counts = (pairing.canary[:, 0], pairing.n_canary, pairing.stable[:, 0], pairing.n_stable, pairing.seconds)
        return tuple(float(count[0]) for count in counts)

    for (n_canary, n_stable), (bad_canary, bad_stable) in zip(requests, bad, strict=True):
        over, _ = pairing.add(
            np.array([[bad_canary]]), np.array([n_canary]), np.array([[bad_stable]]), np.array([n_stable]), np.ones(1)
        )
        if over.size:
            seen.append(taken())
            pairing.clear(over)
    seen.append(taken())
    return seen


@given(REQUESTS)
def test_nothing_is_lost_nor_counted_twice(requests: list[tuple[int, int]]) -> None:
    seen = pairs(requests, requests)
    assert sum(pair[1] for pair in seen) == sum(canary for canary, _ in requests)
    assert sum(pair[3] for pair in seen) == sum(stable for _, stable in requests)
    assert sum(pair[4] for pair in seen) == len(requests)
    assert all(pair[0] == pair[1] and pair[2] == pair[3] for pair in seen)


@given(REQUESTS)
def test_how_requests_ended_does_not_move_the_boundaries(requests: list[tuple[int, int]]) -> None:
    healthy = pairs(requests, [(0, 0)] * len(requests))
    failing = pairs(requests, requests)
    assert [(p[1], p[3], p[4]) for p in healthy] == [(p[1], p[3], p[4]) for p in failing]


@given(REQUESTS)
def test_a_collection_ends_with_a_pair_or_with_age(requests: list[tuple[int, int]]) -> None:
    for _, n_canary, _, n_stable, seconds in pairs(requests, requests)[:-1]:
        assert (n_canary > 0 and n_stable > 0) or seconds == LONGEST_S
        assert seconds <= LONGEST_S
