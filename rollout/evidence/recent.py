"""How much traffic a version has had in the last minutes: what a rollout that is about to start may expect.

Counted from the access log, which tells of every prediction whether or not a rollout is under way; feedback from its
store. An estimate for a forecast, never evidence: a log entry that was lost makes it a little too low.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.logged import LoggedRequest
from rollout.outlook import Traffic
from rollout.ports import ArmCounts, Clock, Outcome

KEPT: Final = 15
LEAST_S: Final = 10.0
"""After a start of the control plane nothing is said before this long."""
_STRETCH_S: Final = 20.0
_ENOUGH_S, _ENOUGH_REQUESTS = 30.0, 200
"""The rate of so long and so many requests is the present one; with less, more of the past is looked at."""


@dataclass(slots=True)
class _Stretch:
    """`position`: where the joined feedback stood when it began."""

    began: float
    position: int
    counts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """[answered, failed] by model and version."""


class RecentTraffic:
    """`rollout.outlook.PresentTraffic` of models by their public name: of the last half minute, or of as many as five
    minutes where that had few requests."""

    def __init__(self, *, desk: FeedbackDesk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._stretches = deque([_Stretch(clock.now(), desk.store.position)], maxlen=KEPT)

    def record(self, requests: Iterable[LoggedRequest]) -> None:
        """Never blocks, never raises."""
        self._turn_over()
        counts = self._stretches[-1].counts
        for request in requests:
            if request.outcome is not Outcome.CALLER:
                of_version = counts.setdefault((request.model, request.version), [0, 0])
                of_version[request.outcome is Outcome.BAD] += 1

    async def of(self, model: str, version: int) -> Traffic:
        self._turn_over()
        now = self._clock.now()
        answered = failed = 0
        for stretch in reversed(self._stretches):
            counted = stretch.counts.get((model, version), (0, 0))
            answered, failed = answered + counted[0], failed + counted[1]
            seconds, position = now - stretch.began, stretch.position
            if seconds >= _ENOUGH_S and answered + failed >= _ENOUGH_REQUESTS:
                break
        if seconds < LEAST_S:
            return Traffic(trouble=f"the control plane has looked for {max(seconds, 0.0):.0f} s only")
        try:
            feedback = await self._desk.counts(model, position, self._desk.store.position)
        except sqlite3.Error as error:
            return Traffic(trouble=f"the feedback store cannot be read: {error}")
        arm = feedback.get(version, ArmCounts())
        return Traffic(
            seconds=seconds,
            requests=answered + failed,
            errors=failed,
            labelled=arm.labelled,
            wrong=arm.wrong,
            rewards=arm.reward_count,
            lost_reward=max(arm.reward_count - arm.reward_sum, 0.0),
        )

    def _turn_over(self) -> None:
        began = self._stretches[-1].began
        passed = int((self._clock.now() - began) // _STRETCH_S)
        for number in range(max(1, passed - KEPT + 1), passed + 1):
            self._stretches.append(_Stretch(began + number * _STRETCH_S, self._desk.store.position))
