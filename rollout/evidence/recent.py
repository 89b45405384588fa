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

MINUTES: Final = 5
LEAST_S: Final = 10.0
"""After a start of the control plane nothing is said before this long."""
_BUCKET_S: Final = 60.0


@dataclass(slots=True)
class _Minute:
    """`position`: where the joined feedback stood when it began."""

    began: float
    position: int
    counts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """[answered, failed] by model and version."""


class RecentTraffic:
    """`rollout.outlook.PresentTraffic` of models by their public name. The last five minutes, in whole minutes."""

    def __init__(self, *, desk: FeedbackDesk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._minutes = deque([_Minute(clock.now(), desk.store.position)], maxlen=MINUTES)

    def record(self, requests: Iterable[LoggedRequest]) -> None:
        """Never blocks, never raises."""
        self._turn_over()
        counts = self._minutes[-1].counts
        for request in requests:
            if request.outcome is not Outcome.CALLER:
                of_version = counts.setdefault((request.model, request.version), [0, 0])
                of_version[request.outcome is Outcome.BAD] += 1

    async def of(self, model: str, version: int) -> Traffic:
        self._turn_over()
        now = self._clock.now()
        seconds = now - self._minutes[0].began
        if seconds < LEAST_S:
            return Traffic(trouble=f"the control plane has looked for {max(seconds, 0.0):.0f} s only")
        try:
            feedback = await self._desk.counts(model, self._minutes[0].position, self._desk.store.position)
        except sqlite3.Error as error:
            return Traffic(trouble=f"the feedback store cannot be read: {error}")
        arm = feedback.get(version, ArmCounts())
        answered, failed = (
            sum(minute.counts.get((model, version), (0, 0))[index] for minute in self._minutes) for index in (0, 1)
        )
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
        began = self._minutes[-1].began
        passed = int((self._clock.now() - began) // _BUCKET_S)
        for minute in range(max(1, passed - MINUTES + 1), passed + 1):
            self._minutes.append(_Minute(began + minute * _BUCKET_S, self._desk.store.position))
