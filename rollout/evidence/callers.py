"""Evidence by caller, for sticky traffic: counted from the access log, beside what Envoy counts by request.

Where callers stay on their version, one caller's requests share their fate, and the judge counts callers
(`rollout.ports.ArmCounts.callers`). The log comes by another way than the counters, a moment later and not always
whole; so it is held against them, and a log that lags or drops is missing data: those ticks say why, and are judged by
request.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rollout.evidence.failing import FailingCallers
from rollout.evidence.history import StableHistory
from rollout.evidence.logged import LoggedRequest
from rollout.judge.telemetry import LONGEST_TICK_S
from rollout.ports import ArmCounts, Clock, Evidence, Tick

LEAST_CALLERS = 5
"""Sticky callers that each version must have met before callers are counted: with fewer, a version that fails all of
them could not be told from a few broken clients, and requests are judged."""

MANY_CALLERS = 100
"""A model that had this many sticky callers in the last minutes has its callers counted from the candidate's first
request on: a tenth of them are more than enough."""

_MEMORY_S = 300.0
"""Callers of the present five minutes and of those before are recent."""
_MOST_MODELS = 1_000

_WINDOW_S = 10.0
_LEAST_WINDOW_S = 8.0
_LEAST_REQUESTS = 20
_LEAST_LOGGED = 0.7
"""The log is complete when it tells of this part of what Envoy counted in the window: it is sent twice a second, so
that in a steady flow it is 5 % behind."""


@dataclass(slots=True)
class _Counts:
    """Of one version since the last read; `known` are its first sticky callers since the model is read."""

    callers: int = 0
    failed: int = 0
    known: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Model:
    """`window`: (seconds, requests that Envoy counted, entries of the log) per tick of late. `sticky`, it stays so."""

    versions: defaultdict[int, _Counts] = field(default_factory=lambda: defaultdict(_Counts))
    logged: int = 0
    window: deque[tuple[float, int, int]] = field(default_factory=deque)
    sticky: bool = False

    def has_enough(self) -> bool:
        """Whether two versions have met enough sticky callers."""
        return sum(len(counts.known) >= LEAST_CALLERS for counts in self.versions.values()) >= 2


class _Recent:
    """How many sticky callers each model had of late, up to `MANY_CALLERS`."""

    def __init__(self) -> None:
        self._began = 0.0
        self._now: dict[str, set[int]] = {}
        self._before: dict[str, set[int]] = {}

    def add(self, request: LoggedRequest, at: float) -> None:
        if at - self._began >= _MEMORY_S:
            self._before = self._now if at - self._began < 2 * _MEMORY_S else {}
            self._now, self._began = {}, at
        known = self._now.get(request.model)
        if known is None:
            if len(self._now) >= _MOST_MODELS:
                return
            known = self._now[request.model] = set()
        if len(known) < MANY_CALLERS:
            known.add(request.caller)

    def many(self, model: str) -> bool:
        return len(self._now.get(model, set()) | self._before.get(model, set())) >= MANY_CALLERS


class CallerLog:
    """Takes entries of the access log: counts callers of the models that are read, and keeps the history of stable.

    `uncounted` ticks had callers that could not be counted.
    """

    def __init__(self, *, clock: Clock, history: StableHistory, failing: FailingCallers | None = None) -> None:
        self._clock = clock
        self._history = history
        self.failing = failing or FailingCallers()
        self._recent = _Recent()
        self._second = 0
        self._models: dict[str, _Model] = {}
        self.uncounted = 0

    def record(self, requests: Iterable[LoggedRequest]) -> None:
        """Never blocks, never raises."""
        now = self._clock.now()
        if int(now) != self._second:
            self._second = int(now)
            self.failing.begin_period()
        for request in requests:
            callers, failed = self.failing.observe(request, now)
            self._history.add(request, callers, failed, now)
            if request.sticky:
                self._recent.add(request, now)
            model = self._models.get(request.model)
            if model is None:
                continue
            model.logged += 1
            counts = model.versions[request.version]
            counts.callers += callers
            counts.failed += failed
            if request.sticky and len(counts.known) < LEAST_CALLERS:
                counts.known.add(request.caller)

    def read(self, models: Sequence[str], ticks: Mapping[str, Tick]) -> Mapping[str, Tick]:
        """The ticks with the callers of the same time. Counting of a model begins with its first read."""
        self.failing.begin_period()
        self._models = {name: self._models.get(name) or _Model() for name in models}
        return {name: self._counted(name, self._models[name], tick) for name, tick in ticks.items()}

    def _counted(self, name: str, model: _Model, tick: Tick) -> Tick:
        if tick.missing:
            return tick  # What was counted since is in the next one, as with Envoy's counters.
        if tick.seconds > LONGEST_TICK_S:
            self._models[name] = _Model()  # Nobody read for a while: this is another rollout.
            return tick
        model.sticky = model.sticky or model.has_enough() or self._recent.many(name)
        why = self._behind(model, tick)
        arms = {version: _with_callers(arm, model.versions[version]) for version, arm in tick.arms.items()}
        model.logged = 0
        for counts in model.versions.values():
            counts.callers = counts.failed = 0
        if not model.sticky:
            return tick
        if why:
            self.uncounted += 1
            return replace(tick, callers_missing=why)
        return replace(tick, arms=arms, by_caller=True)

    def _behind(self, model: _Model, tick: Tick) -> str:
        """Why the log cannot be trusted to tell of all callers; empty when it can."""
        counted = sum(arm.requests + arm.caller for arm in tick.arms.values())
        window = model.window
        window.append((tick.seconds, counted, model.logged))
        while sum(seconds for seconds, _, _ in window) > _WINDOW_S and len(window) > 1:
            window.popleft()
        seconds, requests, logged = (sum(part) for part in zip(*window, strict=True))
        if seconds < _LEAST_WINDOW_S or requests < _LEAST_REQUESTS or logged >= _LEAST_LOGGED * requests:
            return ""
        return f"the access log tells of {logged:,} of the {requests:,} requests of the last {seconds:.0f} s"


class CountedCallers:
    """`rollout.ports.Evidence` of Envoy's counters, with the callers from its access log."""

    def __init__(self, source: Evidence, log: CallerLog) -> None:
        self._source = source
        self._log = log

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        return self._log.read(models, await self._source.read(models))


def _with_callers(arm: ArmCounts, counts: _Counts) -> ArmCounts:
    return replace(arm, callers=counts.callers, bad_callers=counts.failed)
