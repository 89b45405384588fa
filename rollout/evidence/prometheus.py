"""Evidence from Prometheus: counters per version, by the PromQL templates of a rollout's spec.

Each query is one growing counter; counts of a tick are the difference to the last reading, so that a scrape that is
not yet there gives an empty tick, and a missed reading loses nothing. What cannot be counted on is missing with a
reason: no series, several, a number that is none, a counter that fell, samples too old, an answer that is no answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from rollout.evidence.subject import FindSubject, Subject
from rollout.ports import ArmCounts, Clock, Tick
from rollout.spec_parts import PrometheusSpec, QueryPair

_COUNTERS: Final = ("requests", "errors", "labelled", "wrong")
_MOST: Final = 1e15
"""Above this a float no longer counts one by one."""


class NoReading(Exception):
    """A query gave no number that can be counted on; the message says which and why."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """Totals by (counter, version) at a monotonic time."""

    subject: Subject
    at_s: float
    totals: Mapping[tuple[str, int], float]


def filled(template: str, subject: Subject) -> str:
    """PromQL with the rollout's names in place of {{model}}, {{stable}} and {{candidate}}."""
    # Of a line (`digits@2`) the model: versions tell the majors apart.
    model = subject.model.partition("@")[0]
    names = {"model": model, "stable": str(subject.stable), "candidate": str(subject.candidate)}
    for name, value in names.items():
        template = template.replace("{{" + name + "}}", value)
    return template


class PrometheusEvidence:
    """`rollout.ports.Evidence` for the rollouts whose spec has `prometheus`; others are left out of the answer.

    Close it with `aclose`.
    """

    def __init__(self, *, subject: FindSubject, clock: Clock, timeout_s: float = 2.0) -> None:
        self._subject = subject
        self._clock = clock
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None
        self._last: dict[str, _Reading] = {}

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        """Counts since the last reading. Never raises: trouble is a Tick with `missing` set."""
        found = [subject for model in models if (subject := self._subject(model)) is not None]
        asked = [(subject, spec) for subject in found if (spec := subject.spec.prometheus) is not None]
        ticks = await asyncio.gather(*(self._tick(subject, spec) for subject, spec in asked))
        names = [subject.model for subject, _ in asked]
        self._last = {model: reading for model, reading in self._last.items() if model in names}
        return dict(zip(names, ticks, strict=True))

    async def _tick(self, subject: Subject, spec: PrometheusSpec) -> Tick:
        now = self._clock.now()
        try:
            reading = await self._reading(subject, spec)
        except NoReading as trouble:
            return Tick(at=now, seconds=0.0, missing=f"Prometheus: {trouble}")
        last = self._last.get(subject.model)
        if last is None or last.subject != subject:
            self._last[subject.model] = reading
            return Tick(at=now, seconds=0.0, missing="Prometheus: first reading; counting starts here")
        seconds = reading.at_s - last.at_s
        fell = [key for key, total in reading.totals.items() if total < last.totals.get(key, 0.0)]
        if fell:
            self._last[subject.model] = reading
            name, version = fell[0]
            why = f"Prometheus: {name} of version {version} fell, so its counter began anew"
            return Tick(at=now, seconds=seconds, missing=why)
        counts = {key: round(total) - round(last.totals[key]) for key, total in reading.totals.items()}
        arms = {version: _arm(counts, version) for version in (subject.stable, subject.candidate)}
        for version, arm in arms.items():
            if arm.ok < 0 or arm.labelled < arm.wrong:
                # Not taken as the last reading: what the other counter lacks may be in the next one.
                why = f"Prometheus: version {version} has more bad answers than answers; are both from one scrape?"
                return Tick(at=now, seconds=seconds, missing=why)
        self._last[subject.model] = reading
        return Tick(at=now, seconds=seconds, arms=arms)

    async def _reading(self, subject: Subject, spec: PrometheusSpec) -> _Reading:
        queries: dict[tuple[str, int], str] = {}
        for name in _COUNTERS:
            pair: QueryPair | None = getattr(spec, name)
            if pair is not None:
                queries[(name, subject.stable)] = filled(pair.stable, subject)
                queries[(name, subject.candidate)] = filled(pair.candidate, subject)
        at, at_s = self._clock.now(), self._clock.monotonic()
        numbers = await asyncio.gather(
            *(
                self._number(spec, at, f"{name} of version {version}", query)
                for (name, version), query in queries.items()
            )
        )
        if spec.age is not None:
            age_s = await self._number(spec, at, "age", filled(spec.age, subject))
            if age_s > spec.max_age_s:
                raise NoReading(f"the newest sample is {age_s:.0f} s old, {spec.max_age_s:g} allowed")
        totals = dict(zip(queries, numbers, strict=True))
        for (name, version), total in totals.items():
            if not 0 <= total <= _MOST:
                raise NoReading(f"{name} of version {version} is {total:g}, expected a count")
        return _Reading(subject, at_s, totals)

    def _http(self) -> httpx.AsyncClient:
        """Made at its first use: reading the certificate authorities is a noticeable part of a start."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._timeout_s, trust_env=False)
        return self._client

    async def _number(self, spec: PrometheusSpec, at: float, what: str, query: str) -> float:
        """Raises NoReading."""
        url = f"{spec.url.rstrip('/')}/api/v1/query"
        try:
            # All at one instant, so that errors and requests are of the same scrape.
            response = await self._http().post(url, data={"query": query, "time": f"{at:.3f}"})
        except httpx.HTTPError as error:
            raise NoReading(f"{spec.url} does not answer ({error or type(error).__name__})") from error
        except httpx.InvalidURL as error:
            raise NoReading(f"{spec.url} is no address: {error}") from error
        try:
            answer = response.json()
        except ValueError as error:
            raise NoReading(f"{what}: {spec.url} answered {response.status_code}, not JSON") from error
        return _one_number(what, answer, response.status_code)


def _one_number(what: str, answer: Any, status: int) -> float:
    """The number of an instant query's answer (https://prometheus.io/docs/prometheus/latest/querying/api/)."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        error = answer.get("error") if isinstance(answer, dict) else None
        raise NoReading(f"{what}: {error or f'HTTP {status} without a result'}")
    try:
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "vector":
            if len(result) != 1:
                series = "no series" if not result else f"{len(result)} series"
                raise NoReading(f"{what}: the query gives {series}, expected one number (use sum(...))")
            text = result[0]["value"][1]
        elif kind == "scalar":
            text = result[1]
        else:
            raise NoReading(f"{what}: the query gives a {kind}, expected one number")
        number = float(text)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NoReading(f"{what}: an answer that cannot be read ({error!r})") from error
    if not math.isfinite(number):
        raise NoReading(f"{what}: the query gives {text}")
    return number


def _arm(counts: Mapping[tuple[str, int], int], version: int) -> ArmCounts:
    requests, errors = counts[("requests", version)], counts[("errors", version)]
    return ArmCounts(
        ok=requests - errors,
        bad=errors,
        labelled=counts.get(("labelled", version), 0),
        wrong=counts.get(("wrong", version), 0),
    )
