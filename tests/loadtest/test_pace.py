"""Turns of an open loop: whose fault a late request is."""

from __future__ import annotations

import time

import gevent

from loadtest.pace import OpenLoop
from loadtest.schedule import constant


def test_a_request_that_found_a_free_user_waited_for_none() -> None:
    pace = OpenLoop(constant(1000, 0.001), begins=time.perf_counter() - 1)
    turn = pace.next()
    assert turn is not None
    assert turn.queued_s == 0
    assert turn.lag_s > 0
    assert pace.next() is None


def test_a_request_that_found_every_user_busy_waited_for_one() -> None:
    pace = OpenLoop(constant(1000, 0.003), begins=time.perf_counter() - 1)
    for _ in range(10):
        gevent.sleep(0)  # the clock calls one request at each
    turns = [pace.next() for _ in range(3)]
    assert all(turn is not None and turn.queued_s > 0 and turn.lag_s > 0 for turn in turns)
    assert pace.next() is None
