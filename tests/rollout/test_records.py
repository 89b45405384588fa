"""Evidence written to the journal is read back bit for bit; totals are sums; quantiles lie in their bucket."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from rollout.ports import ArmCounts, Tick
from rollout.records import Tally, quantile_us, tick_from_json, tick_to_json

counts = st.integers(min_value=0, max_value=10**6)
EDGES = (100, 200, 400)
arms = st.builds(
    ArmCounts,
    ok=counts,
    bad=counts,
    caller=counts,
    latency=st.just(()) | st.tuples(counts, counts, counts, counts),
    labelled=counts,
    wrong=counts,
    reward_count=counts,
    reward_sum=st.floats(0, 1e6),
)
ticks = st.builds(
    Tick,
    at=st.floats(0, 2e9),
    seconds=st.floats(0.01, 60),
    arms=st.dictionaries(st.integers(1, 9), arms, max_size=3),
    edges_us=st.just(EDGES) | st.just(()),
    missing=st.just("") | st.text(max_size=20),
)


@given(ticks, st.sampled_from([(), EDGES]))
def test_a_tick_survives_the_journal(tick: Tick, known: tuple[int, ...]) -> None:
    assert tick_from_json(json.loads(json.dumps(tick_to_json(tick, known))), known) == tick


@given(st.lists(ticks, max_size=5))
def test_totals_survive_the_journal_and_count_what_was_not_missing(seen: list[Tick]) -> None:
    tally = Tally()
    for tick in seen:
        tally = tally.plus(tick)
    for version in tally.arms:
        told = [tick.arms[version] for tick in seen if not tick.missing and version in tick.arms]
        assert tally.arms[version].requests == sum(arm.requests for arm in told)
        assert tally.arms[version].wrong == sum(arm.wrong for arm in told)
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


@given(st.tuples(counts, counts, counts, counts), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_that_holds_it(latency: tuple[int, ...], q: float) -> None:
    value = quantile_us(latency, EDGES, q)
    if not sum(latency):
        assert value is None
        return
    assert value is not None
    below = sum(count for count, edge in zip(latency, EDGES, strict=False) if edge < value)
    upto = sum(count for count, low in zip(latency, (0, *EDGES), strict=True) if low <= value)
    assert below <= q * sum(latency) * (1 + 1e-9)
    assert upto >= q * sum(latency) * (1 - 1e-9)


def test_no_quantile_without_edges() -> None:
    assert quantile_us((), (), 0.5) is None
    assert quantile_us((1, 2), EDGES, 0.5) is None
