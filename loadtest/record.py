"""A finished load test as a value: what was asked for, everything that was counted, what happened meanwhile.

Written beside the report as `record.json`, from which the report can be made again. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from loadtest.plan import Plan
from loadtest.tally import Tally


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a second of the test: a step of a rollout, a worker that went away."""

    second: float
    what: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and when it ran. `processes` sent requests, from a machine with so many `cores`."""

    started_at: str
    command: str
    cores: int
    processes: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """`seconds` is how long requests were due; `outcome` what became of a canary's rollout, else empty.

    `candidate` is the version that the canary scenario rolled out, None elsewhere.
    """

    plan: Plan
    tally: Tally
    seconds: float
    events: tuple[Event, ...]
    surroundings: Surroundings
    outcome: str = ""
    candidate: int | None = None
    stopped_early: str = ""

    def to_json(self) -> str:
        return json.dumps(
            {
                "plan": json.loads(self.plan.to_json()),
                "tally": self.tally.to_json(),
                "seconds": self.seconds,
                "events": [asdict(event) for event in self.events],
                "surroundings": asdict(self.surroundings),
                "outcome": self.outcome,
                "candidate": self.candidate,
                "stopped_early": self.stopped_early,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        value: dict[str, Any] = json.loads(text)
        tally = Tally()
        tally.merge(value["tally"])
        events: Sequence[Mapping[str, Any]] = value["events"]
        return cls(
            plan=Plan.from_json(json.dumps(value["plan"])),
            tally=tally,
            seconds=value["seconds"],
            events=tuple(Event(**event) for event in events),
            surroundings=Surroundings(**value["surroundings"]),
            outcome=value["outcome"],
            candidate=value["candidate"],
            stopped_early=value["stopped_early"],
        )
