"""The knee of a ramp is the last step that was carried, and a tired load generator is not taken for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtest.scenarios import Plateau, find_knee


def step(offered: float, answered: float, p99_ms: float | None, *, failed: int = 0, bound: bool = False) -> Plateau:
    return Plateau(offered, answered, failed, p99_ms, bound)


CALM = [step(100, 100, 4.0), step(200, 200, 5.0), step(300, 299, 9.0)]


def test_a_tail_that_grows_out_of_proportion_is_a_knee() -> None:
    knee = find_knee([*CALM, step(400, 398, 240.0)])
    assert (knee.rate, knee.found) == (300, True)
    assert knee.why == "at 400/s p99 was 240 ms, at the calmest step 4.0 ms"


def test_answers_that_fall_behind_are_a_knee() -> None:
    knee = find_knee([*CALM, step(400, 350, 12.0)])
    assert (knee.rate, knee.why) == (300, "at 400/s only 350/s were answered")


def test_failures_are_a_knee() -> None:
    assert find_knee([step(100, 99, 4.0, failed=3)]).rate is None


def test_a_generator_without_cpu_is_told_apart() -> None:
    knee = find_knee([*CALM, step(400, 350, 240.0, bound=True)])
    assert (knee.gave_way, knee.found) == (True, False)
    assert "load generator or its machine could not keep up" in knee.why


def test_no_knee_is_said_with_the_highest_rate() -> None:
    knee = find_knee(CALM)
    assert (knee.gave_way, knee.rate, knee.why) == (False, 300, "no knee up to 300/s, the highest rate of the ramp")


def test_a_small_tail_is_no_knee() -> None:
    assert not find_knee([step(100, 100, 0.4), step(200, 200, 20.0)]).gave_way


def test_in_a_closed_loop_users_that_get_no_more_answers_are_past_the_knee() -> None:
    users = [step(2, 200, 10.0), step(4, 390, 10.2), step(6, 400, 15.0)]
    knee = find_knee(users, closed=True)
    assert (knee.rate, knee.found) == (390, True)
    assert "hardly more than 390/s before" in knee.why


@given(
    st.lists(
        st.builds(
            step,
            st.floats(min_value=1, max_value=1e4),
            st.floats(min_value=0, max_value=1e4),
            st.none() | st.floats(min_value=0.1, max_value=1e4),
            failed=st.integers(min_value=0, max_value=2),
        ),
        max_size=10,
    )
)
def test_more_of_a_ramp_never_takes_a_knee_back_to_a_higher_step(steps: list[Plateau]) -> None:
    steps.sort(key=lambda plateau: plateau.offered)
    for length in range(len(steps) + 1):
        knee = find_knee(steps[:length])
        if knee.rate is not None:
            assert knee.rate in {plateau.offered for plateau in steps[:length]}
            assert all(not plateau.failed for plateau in steps[:length] if plateau.offered < knee.rate)
