"""Whole rollouts of sticky traffic: a few broken clients are a few failures, and a broken version is still one.

The controller, the judge and the counting of callers are real; requests, and the access log that tells of them, are
drawn.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from rollout.calibration import Calibrated
from rollout.controller import Controller
from rollout.dump import parse
from rollout.evidence.callers import CallerLog, CountedCallers
from rollout.evidence.history import StableHistory
from rollout.evidence.history_store import HistoryStore
from rollout.explain import explain
from rollout.journal import Kind
from rollout.judge.dispersion import Calibration
from rollout.machine import FINAL, DeadlineAction, State
from rollout.ports import FULL_WEIGHT, ArmCounts, Outcome, Tick
from rollout.rehearsal import rehearse
from rollout.replay import replay
from rollout.report import RolloutStatus
from rollout.spec import FixedMargins, RolloutSpec
from rollout.traffic import Recorded
from tests.evidence.logs import logged, memory
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import EDGES_US, GOOD, QUICK, Behaviour, World, make_controller, make_world, running, until

CALLERS = 150
SHARE = 1.0 / np.arange(5, CALLERS + 5)
"""The busiest makes a tenth of the requests, before it is scaled to 1."""


@dataclass(frozen=True, eq=False)
class Crowd:
    """Who the callers are: those whose `place` is below the weight are on the candidate; all that the `broken` send
    fails, on either version."""

    place: npt.NDArray[np.float64]
    broken: frozenset[int]

    @classmethod
    def of(cls, seed: int) -> Crowd:
        """Three of the twenty busiest are broken."""
        rng = np.random.default_rng(seed)
        return cls(rng.random(CALLERS), frozenset(rng.choice(20, 3, replace=False).tolist()))


_PLACE = np.random.default_rng(5).permutation(CALLERS) / CALLERS
UNLUCKY = Crowd(_PLACE, frozenset(np.argsort(_PLACE)[[2, 7, 40, 120]].tolist()))
"""Two of four broken clients reach the candidate in its first step."""

SHORT = replace(QUICK, margins=FixedMargins(errors=0.03, latency_p50=0.5, latency_p99=0.0))


@dataclass
class StickyTraffic:
    """`rollout.ports.Evidence` as Envoy's counters give it, and the access log beside it.

    From `silent_s` to `silent_until_s` the log is silent; `breaks_s`: from then on the candidate fails always.
    """

    world: World
    log: CallerLog
    crowd: Crowd = UNLUCKY
    silent_s: float = float("inf")
    silent_until_s: float = float("inf")
    breaks_s: float = float("inf")

    def __post_init__(self) -> None:
        self._read_at: float | None = None

    async def read(self, models: Sequence[str]) -> Mapping[str, Tick]:
        return {model: self._tick() for model in models}

    def _tick(self) -> Tick:
        world, now, at = self.world, self.world.clock.monotonic(), self.world.clock.now()
        last, self._read_at = self._read_at, at
        if last is None:
            return Tick(at=at, seconds=1.0, missing="first reading")
        rng = np.random.default_rng([3, round(at * 10)])
        requests = rng.poisson(world.rps * (at - last) * SHARE / SHARE.sum())
        on_candidate = self.crowd.place < world.weight("digits") / FULL_WEIGHT
        entries = []
        for caller in np.flatnonzero(requests).tolist():
            version = 2 if on_candidate[caller] else world.stable["digits"]
            broken = caller in self.crowd.broken or (version == 2 and now >= self.breaks_s)
            failed = rng.random(requests[caller]) < (1.0 if broken else world.versions[version].errors)
            outcomes = [Outcome.BAD if bad else Outcome.OK for bad in failed.tolist()]
            entries += [logged(caller, outcome, version=version) for outcome in outcomes]
        if not self.silent_s <= now < self.silent_until_s:
            self.log.record(entries)
        arms = {}
        for version in {entry.version for entry in entries}:
            mine = [entry.outcome for entry in entries if entry.version == version]
            ok = mine.count(Outcome.OK)
            latency_us = 4000.0 * np.exp(0.4 * rng.standard_normal(ok))
            buckets = np.bincount(np.searchsorted(EDGES_US, latency_us), minlength=len(EDGES_US) + 1)
            arms[version] = ArmCounts(ok=ok, bad=len(mine) - ok, latency=tuple(buckets.tolist()))
        return Tick(at=at, seconds=at - last, arms=arms, edges_us=EDGES_US)


@dataclass(frozen=True)
class Told:
    """How it ended, and the journal."""

    status: RolloutStatus
    lines: tuple[str, ...]
    uncounted: int


class Known:
    """A history that says this."""

    def __init__(self, calibrated: Calibrated) -> None:
        self._calibrated = calibrated

    def of(self, line: str) -> Calibrated:
        return self._calibrated


@cache
def roll(
    candidate: Behaviour = GOOD,
    *,
    crowd: Crowd = UNLUCKY,
    by_caller: bool = True,
    spec: RolloutSpec = SHORT,
    history: Calibrated | None = None,
    breaks_s: float = float("inf"),
    silent_s: float = float("inf"),
    silent_until_s: float = float("inf"),
    restart_s: float | None = None,
) -> Told:
    async def test(clock: VirtualClock) -> Told:
        world, connection = make_world(clock, candidate, rps=100.0), sqlite3.connect(":memory:")

        def controller_of() -> tuple[CallerLog, Controller]:
            # Of no version: what it writes, it writes in a thread, which virtual time does not wait for.
            nothing = StableHistory(store=HistoryStore(memory()), stable=dict, clock=clock)
            log = CallerLog(clock=clock, history=nothing)
            traffic = StickyTraffic(world, log, crowd, silent_s, silent_until_s, breaks_s)
            evidence = CountedCallers(traffic, log) if by_caller else traffic
            known = None if history is None else Known(history)
            return log, make_controller(world, connection, evidence=evidence, history=known)

        log, controller = controller_of()
        await controller.start("digits", 2, 1, spec)
        if restart_s is not None:
            async with running(controller, world):
                await clock.sleep(restart_s)
            log, controller = controller_of()
        async with running(controller, world):
            status = await until(world, controller, *FINAL, State.PAUSED, limit_s=7200.0)
        return Told(status, tuple(controller.journal(1)), log.uncounted)

    return run_virtual(test)


def test_broken_clients_do_not_roll_a_healthy_version_back_and_by_request_they_would() -> None:
    assert roll().status.state is State.PROMOTED
    by_request = roll(by_caller=False).status
    assert by_request.state is State.ROLLED_BACK
    assert "errors" in by_request.reason or "guardrail" in by_request.reason


def test_the_journal_has_the_callers_and_replays() -> None:
    told = roll()
    row, records = parse(told.lines)
    found = replay(row, records)
    assert found.same
    arms = [arm for record in records if record.kind is Kind.TICK for arm in record.body.get("arms", {}).values()]
    assert sum(arm.get("callers", 0) for arm in arms) > 1000
    assert 4 <= sum(arm.get("bad_callers", 0) for arm in arms) < 60
    assert sum(arm.get("bad", 0) for arm in arms) > 150


@pytest.mark.parametrize(
    ("candidate", "breaks_s"),
    [(Behaviour(errors=0.05), float("inf")), (Behaviour(errors=1.0), float("inf")), (GOOD, 14.0)],
    ids=["fails at times", "crashes at once", "crashes later"],
)
def test_a_bad_version_is_caught_by_its_callers(candidate: Behaviour, breaks_s: float) -> None:
    status = roll(candidate, breaks_s=breaks_s, spec=replace(SHORT, min_step_s=30.0)).status
    assert status.state is State.ROLLED_BACK
    assert "errors" in status.reason or "guardrail" in status.reason


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_whoever_is_broken_healthy_versions_pass_and_bad_ones_do_not() -> None:
    crowds = [Crowd.of(seed) for seed in range(12)]
    # By request the share of the traffic may look wrong for ever: callers come in lumps.
    spec = replace(SHORT, deadline_s=300.0, on_deadline=DeadlineAction.PAUSE)
    by_caller = [roll(crowd=crowd).status.state for crowd in crowds]
    by_request = [roll(crowd=crowd, by_caller=False, spec=spec).status.state for crowd in crowds]
    assert set(by_caller) == {State.PROMOTED}
    assert by_request.count(State.ROLLED_BACK) >= 3, "the crowds are such that it matters"
    for errors in (0.05, 1.0):
        bad = [roll(Behaviour(errors=errors), crowd=crowd).status.state for crowd in crowds]
        assert set(bad) == {State.ROLLED_BACK}


class TestTheLogIsSilent:
    def test_ticks_are_judged_by_request_and_say_so(self) -> None:
        noisy = Calibrated(seconds=7200.0, requests=10**6, errors=Calibration(scale=10.0, slope=5.0))
        spec = replace(SHORT, min_step_s=30.0, guardrail=False, steps_bp=(1000, FULL_WEIGHT))
        told = roll(spec=spec, history=noisy, silent_s=10.0, silent_until_s=35.0)
        row, records = parse(told.lines)
        missing = [record.body for record in records if record.body.get("callers_missing")]
        assert 15 < len(missing) == told.uncounted
        assert "the access log tells of" in missing[0]["callers_missing"]
        assert replay(row, records).same
        assert (
            f"    {len(missing)} of them by request: the access log did not tell of all callers"
            in explain(row, records).lines()
        )

    def test_a_version_that_crashes_meanwhile_is_caught(self) -> None:
        spec = replace(SHORT, min_step_s=60.0)
        status = roll(spec=spec, silent_s=10.0, breaks_s=35.0).status
        assert status.state is State.ROLLED_BACK
        assert "callers could not be counted" in status.reason


class TestCalibration:
    FOUND = Calibrated(
        seconds=10_800.0,
        requests=1_000_000,
        errors=Calibration(scale=2.5, slope=0.01),
        callers=Calibration(scale=1.2),
        latency_tolerance=0.157625,
    )

    def test_it_is_in_the_journal_from_the_start_and_explained(self) -> None:
        row, records = parse(roll(history=self.FOUND).lines)
        assert [record.kind for record in records][:2] == [Kind.CALIBRATION, Kind.TRANSITION]
        assert Calibrated.from_json(records[0].body) == self.FOUND
        lines = explain(row, records).lines()
        assert "    note: " + self.FOUND.words() in lines[:4]
        assert "16 %" in self.FOUND.words()

    def test_verdicts_rest_on_it_and_replay(self) -> None:
        row, records = parse(roll(history=self.FOUND).lines)
        assert replay(row, records).same
        without = [record for record in records if record.kind is not Kind.CALIBRATION]
        assert not replay(row, without).same

    def test_a_restart_goes_on_with_it(self) -> None:
        told = roll(history=self.FOUND, restart_s=10.0)
        row, records = parse(told.lines)
        assert sum(record.kind is Kind.CALIBRATION for record in records) == 1
        assert replay(row, records).same
        assert told.status.state is State.PROMOTED, "who was failing is forgotten, and each counts once more"

    def test_a_spec_can_do_without(self) -> None:
        _, records = parse(roll(history=self.FOUND, spec=replace(SHORT, calibration=False)).lines)
        assert not any(record.kind is Kind.CALIBRATION for record in records)

    def test_too_little_history_is_said_and_changes_nothing(self) -> None:
        little = replace(self.FOUND, seconds=600.0)
        row, records = parse(roll(history=little).lines)
        assert any("30 min needed" in line for line in explain(row, records).lines())
        without = [record for record in records if record.kind is not Kind.CALIBRATION]
        assert replay(row, without).same

    def test_a_journal_of_before_there_was_any_still_replays(self) -> None:
        row, records = parse(roll().lines)
        assert not any(record.kind is Kind.CALIBRATION for record in records)
        old = replace(row, spec={name: value for name, value in row.spec.items() if name != "calibration"})
        assert replay(old, records).same

    def test_a_plan_on_recorded_traffic_uses_it(self) -> None:
        row, records = parse(roll(history=self.FOUND).lines)
        traffic = Recorded(row, records)
        assert traffic.calibrated == self.FOUND
        wide, narrow = (rehearse(replace(SHORT, calibration=on), Recorded(row, records)) for on in (True, False))
        phi = [next(m.phi for m in found.metrics if m.metric == "errors") for found in (wide, narrow)]
        assert phi[0] > phi[1]
        assert json.dumps(wide.to_json())
