"""Evidence from Envoy: counts and latency per version, scraped from its statistics.

Envoy's stats access logger counts every prediction under model, version and outcome; `gateway.envoy.statistics`
configures it. Labels and rewards come from another source (`rollout.evidence.combine`).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from adapters.server import Address
from rollout.evidence.combine import plus
from rollout.evidence.envoy_counts import LATENCY, PREFIX, REQUESTS, latency_limits_us, limit_of
from rollout.evidence.exposition import BadExposition, Sample, parse
from rollout.ports import ArmCounts, Clock, Outcome, Tick

_REQUESTS = f"envoy_{PREFIX}_{REQUESTS}"
_BUCKETS = f"envoy_{PREFIX}_{LATENCY}_bucket"
_UPTIME = "envoy_server_uptime"

_CALLER_FLAGS = frozenset({"DC", "DR", "DPE", "RL"})
"""Envoy response flags: the caller hung up, reset the stream, broke the protocol, or was limited."""

_CALLER_STATUS = frozenset({"1", "3", "6", "7", "9", "10", "11", "12", "16"})
"""gRPC status codes that blame the request. Not 5: nobody reaches a version by a wrong name, so NOT_FOUND is a server
that has lost the version. Not 8: the server is full."""

_CALLER_HTTP = frozenset({"408", "413"})
"""The caller stalled while sending, or sent too much."""


def outcome(*, gs: str, flags: str, code: str) -> Outcome:
    """How a prediction ended, from the labels of its counter: true gRPC status, Envoy's response flags, HTTP code."""
    if not _CALLER_FLAGS.isdisjoint(flags.split(",")) or code in _CALLER_HTTP:
        return Outcome.CALLER
    if gs == "0":
        return Outcome.OK
    return Outcome.CALLER if gs in _CALLER_STATUS else Outcome.BAD


@dataclass(slots=True)
class _Arm:
    """Totals of one version since Envoy started. `buckets` are cumulative, by Envoy's edge."""

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    buckets: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One scrape. `at_s` is monotonic, `uptime_s` Envoy's own."""

    at_s: float
    uptime_s: float
    arms: Mapping[str, Mapping[int, _Arm]]


class EnvoyEvidence:
    """`rollout.ports.Evidence` of one Envoy or a fleet.

    `admins` are the Envoys' admin addresses. A tick is missing when any of them cannot be read: half of the
    counts of a version would be no fair sample of it. Close it with `aclose`.
    """

    def __init__(self, *, admins: Sequence[Address], clock: Clock, timeout_s: float = 2.0) -> None:
        self._admins = tuple(admins)
        self._clock = clock
        # Plain HTTP, so no authorities to read, which takes longer than all else that is made here.
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=False)
        self._last: dict[Address, _Reading] = {}

    async def aclose(self) -> None:
        await self._client.aclose()

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """Counts since the previous call, per model; one that was left out of that begins anew. Never raises: trouble
        is a Tick with `missing` set."""
        readings: dict[Address, _Reading] = {}
        for admin in self._admins if models else ():
            try:
                readings[admin] = await self._scrape(admin, models)
            except (httpx.HTTPError, BadExposition, ValueError) as error:
                # The next delta is over two ticks, which is as good: only this one is missing.
                why = f"Envoy's statistics at {admin} could not be read: {error or type(error).__name__}"
                return {model: Tick(at=self._clock.now(), seconds=0.0, missing=why) for model in models}
        ticks = {model: self._tick(model, readings) for model in models}
        self._last = readings
        return ticks

    async def _scrape(self, admin: Address, models: Sequence[str]) -> _Reading:
        names = "|".join(re.escape(model) for model in sorted(models))
        # Only series that are counted here: a histogram has some 250 lines, and only successes are timed.
        wanted = (
            rf"^server\.uptime$|^{PREFIX}\.{REQUESTS}\.model\.({names})\.version\."
            rf"|^{PREFIX}\.{LATENCY}\.model\.({names})\.version\.[0-9]+\.gs\.0$"
        )
        response = await self._client.get(f"http://{admin}/stats/prometheus", params={"filter": wanted})
        response.raise_for_status()
        return _reading(parse(response.text), models, self._clock.monotonic())

    def _tick(self, model: str, readings: Mapping[Address, _Reading]) -> Tick:
        now = self._clock.now()
        edges = sorted(
            {e for r in readings.values() for arm in r.arms[model].values() for e in arm.buckets} - {math.inf}
        )
        totals: dict[int, ArmCounts] = {}
        seconds = 0.0
        for admin, reading in readings.items():
            last = self._last.get(admin)
            if last is None or model not in last.arms:
                return Tick(at=now, seconds=0.0, missing="first reading of Envoy's counters; counting starts here")
            seconds = reading.at_s - last.at_s
            if reading.uptime_s < last.uptime_s or _went_back(last.arms[model], reading.arms[model]):
                return Tick(at=now, seconds=seconds, missing=f"Envoy at {admin} restarted, its counters began anew")
            for version, arm in reading.arms[model].items():
                counts = _difference(last.arms[model].get(version, _Arm()), arm, edges)
                totals[version] = plus(totals[version], counts) if version in totals else counts
        limits = tuple(limit_of(int(edge)) for edge in edges) or latency_limits_us()
        return Tick(at=now, seconds=seconds, arms=totals, edges_us=limits)


def _reading(samples: Iterable[Sample], models: Sequence[str], at_s: float) -> _Reading:
    arms: dict[str, defaultdict[int, _Arm]] = {model: defaultdict(_Arm) for model in models}
    uptime_s = 0.0
    for sample in samples:
        labels = sample.labels
        if sample.name == _UPTIME:
            uptime_s = sample.value
        elif sample.name == _REQUESTS and labels["model"] in arms:
            how = outcome(gs=labels["gs"], flags=labels["flags"], code=labels["code"])
            arms[labels["model"]][int(labels["version"])].outcomes[how] += int(sample.value)
        elif sample.name == _BUCKETS and labels["model"] in arms and labels["gs"] == "0":
            arms[labels["model"]][int(labels["version"])].buckets[float(labels["le"])] = int(sample.value)
    return _Reading(at_s, uptime_s, arms)


def _went_back(last: Mapping[int, _Arm], now: Mapping[int, _Arm]) -> bool:
    """Whether a counter fell or vanished, which counters never do while Envoy runs."""
    for version, before in last.items():
        after = now.get(version)
        if after is None or any(after.outcomes[how] < count for how, count in before.outcomes.items()):
            return True
        if any(after.buckets.get(edge, 0) < count for edge, count in before.buckets.items()):
            return True
    return False


def _difference(last: _Arm, now: _Arm, edges: Sequence[float]) -> ArmCounts:
    latency: list[int] = []
    below = 0
    for edge in (*edges, math.inf):
        cumulative = now.buckets.get(edge, 0) - last.buckets.get(edge, 0)
        latency.append(cumulative - below)
        below = cumulative
    return ArmCounts(
        ok=now.outcomes[Outcome.OK] - last.outcomes[Outcome.OK],
        bad=now.outcomes[Outcome.BAD] - last.outcomes[Outcome.BAD],
        caller=now.outcomes[Outcome.CALLER] - last.outcomes[Outcome.CALLER],
        latency=tuple(latency) if edges else (),
    )
