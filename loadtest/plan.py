"""What one load test is to do: the options a person gives, read and checked once, as a value that travels.

Workers of a distributed test get it from the master as JSON. Nothing here sends, listens or waits.
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtest.objectives import Objectives
from loadtest.protocols import Protocol
from loadtest.scenarios import SPIKE_FACTOR, Scenario
from loadtest.schedule import Schedule

DEFAULT_GATEWAY, DEFAULT_SERVER = "http://127.0.0.1:8080", "http://127.0.0.1:8090"
DEFAULT_RATE = 100.0
DEFAULT_CLOSED_USERS = 10

USER_SECONDS = 0.5
"""An open loop has users enough for answers that take this long at the highest rate ..."""

MOST_USERS = 400
"""... and no more than this in one process, where each is a connection and a greenlet."""


class BadPlan(Exception):
    """The options contradict each other or the place; the message says which, and what to give instead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A load test. `rate` is requests per second of an open loop; `users` those of a closed one, or 0 for as many as
    an open loop needs. `protocols` may be empty: typed JSON and typed gRPC where the model has them.
    """

    model: str
    gateway: str = DEFAULT_GATEWAY
    server: str = DEFAULT_SERVER
    scenario: Scenario = Scenario.STEADY
    protocols: tuple[Protocol, ...] = ()
    closed: bool = False
    rate: float = DEFAULT_RATE
    users: int = 0
    seconds: float = 60.0
    inputs: str = ""
    low: float = 0.0
    high: float | None = None
    seed: int = 1
    feedback: float = 1.0
    callers: int = 500
    version: int | None = None
    deploy: str = ""
    candidate: int | None = None
    rollout_spec: str = ""
    objectives: Objectives = field(default_factory=lambda: Objectives({}))

    @property
    def schedule(self) -> Schedule:
        """Requests per second, or users of a closed loop, over time."""
        return self.scenario.schedule(float(self.closed_users) if self.closed else self.rate, self.seconds)

    @property
    def closed_users(self) -> int:
        return self.users or DEFAULT_CLOSED_USERS

    @property
    def most_users(self) -> int:
        """The number of Locust users over all processes."""
        if self.closed:
            return math.ceil(self.schedule.peak)
        return self.users or min(MOST_USERS, max(10, math.ceil(self.schedule.peak * USER_SECONDS)))

    @property
    def arrivals_words(self) -> str:
        """The load in words, for people."""
        if self.closed:
            return f"closed loop, {self.schedule.peak:.0f} users"
        words = {
            Scenario.RAMP: f"up to {self.rate:,g}/s",
            Scenario.SPIKE: f"{self.rate:,g}/s, x{SPIKE_FACTOR:g} in the spike",
        }
        return f"open loop, {words.get(self.scenario, f'{self.rate:,g}/s')}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        value: dict[str, Any] = json.loads(text)
        objectives: Mapping[str, Any] = value.pop("objectives")
        value["scenario"] = Scenario(value["scenario"])
        value["protocols"] = tuple(map(Protocol, value["protocols"]))
        limits = {float(percentile): limit for percentile, limit in objectives["latency_ms"].items()}
        return cls(**value, objectives=Objectives(limits, objectives["errors"], objectives["lost"]))


def check(plan: Plan, *, allow_remote: bool) -> None:
    """Raises BadPlan: a load on somebody else's machine that nobody asked for, or options that fit no scenario."""
    for flag, url in (("--gateway", plan.gateway), ("--server", plan.server)):
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise BadPlan(f"{flag}: expected http://HOST:PORT, received {url!r}")
        if not allow_remote and not is_loopback(parts.hostname):
            raise BadPlan(
                f"{flag}: {parts.hostname} is not this machine. A load test can take a service down; if it is yours "
                "and you mean it, add --allow-remote"
            )
    if plan.rate <= 0 or plan.seconds <= 0:
        raise BadPlan("--rate, --duration: expected more than 0")
    given = [bool(plan.deploy), plan.candidate is not None]
    if plan.scenario is Scenario.CANARY and sum(given) != 1:
        raise BadPlan("--scenario canary needs --deploy FILE (a new version) or --candidate N (one that is loaded)")
    if plan.scenario is not Scenario.CANARY and (any(given) or plan.rollout_spec):
        raise BadPlan("--deploy, --candidate and --rollout belong to --scenario canary")
    for flag, name in (("--inputs", plan.inputs), ("--deploy", plan.deploy), ("--rollout", plan.rollout_spec)):
        if name and not Path(name).is_file():
            raise BadPlan(f"{flag}: {name}: no such file")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
