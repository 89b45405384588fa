"""The bench's page in Markdown: what must hold, what was measured, and what other rules do on the same worlds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from loadtest.bench.rollout.cells import TARGETS, Figure, Target
from loadtest.bench.rollout.figures import Measured, measure
from loadtest.bench.rollout.simulate import HELD, NULLS, RIVALS, TOLERANT, TOLERATED, Outcome
from loadtest.bench.rollout.store import Key

Outcomes = Mapping[Key, Sequence[Outcome]]
_SHARES = (Figure.FALSE_ROLLBACK, Figure.MISSED)

_INTRODUCTION = """# What the judge does, measured

Whole rollouts on virtual time: `make bench-judge` simulates them and writes this page (`make bench-judge QUICK=1`:
a tenth of the rollouts, at 20 and 200 requests a second). Written by the bench; not edited by hand.

**What is driven.** The state machine (`rollout.machine`) and the judge (`rollout.judge.panel`) that the controller
runs, by the default spec: 10 %, 30 %, then all but a 5 % holdback. The judge is written for arrays of rollouts; a
control plane judges one at a time, the bench 250 in step, by the same code. Driven through the whole controller (event
loop, journal, leases) a simulated second costs some milliseconds, which would be days for this page; so the controller
drives a sample in the tests, and grants the same weight in every second (`tests/judge/test_bench_seam.py`).

**What is simulated.** Stable fails in 0.1 % of requests, answers in 20 ms (median; p99 95 ms) and is right in 92 % of
answers, a fifth of which are labelled. "Realistic" noise: load, error rate and latency wander in common (standard
deviation of the logarithm 0.25, 0.5 and 0.1, memory one to five minutes), bursts of 5 % errors and of slowness each
about once in ten minutes, 1 % latency noise of each version, a canary that is 1.8 times slower at the start of a step,
labels 45 s late. "Per version" adds what versions do not share: error rates that wander by 0.4, latency by 3 %, errors
in clusters of three. The judge knows three hours of history of stable (two halves against each other), as
`rollout.judge.history` reads it.

**The other rules** see the same worlds with the same steps, set up as their public documentation shows
(`loadtest/bench/rollout/rivals.py` says how). They are thresholds and tests per interval, so this compares rules, not
products.

Intervals are 95 %. A median counts a rollout that never got there as later than any.
"""


def page(outcomes: Outcomes) -> str:
    parts = [_INTRODUCTION, verdict_line(outcomes), "\n".join(_targets(outcomes))]
    parts += ["\n".join(_nulls(outcomes)), "\n".join(_others(outcomes))]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict_line(outcomes: Outcomes) -> str:
    words = Counter(measured.against(target) for target, measured in judged(outcomes))
    missed = f", {words['MISSED']} MISSED" if words["MISSED"] else ""
    counts = f"{words['excellent']} excellent, {words['holds']} hold{missed}"
    return f"**{sum(words.values())} of {len(TARGETS)} figures measured: {counts}.**"


def judged(outcomes: Outcomes) -> Iterator[tuple[Target, Measured]]:
    """Targets whose cell was simulated."""
    for target in TARGETS:
        found = outcomes.get(("Penstock", target.cell))
        if found:
            yield target, measure(target.figure, found)


def _targets(outcomes: Outcomes) -> Iterator[str]:
    yield "## What must hold\n"
    yield f"| figure | version | noise | req/s | must | excellent | Penstock | runs | | {' | '.join(RIVALS)} |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|" + "---:|" * len(RIVALS)
    for target, measured in judged(outcomes):
        cell = target.cell
        rivals = [
            _value(target.figure, measure(target.figure, found)) if (found := outcomes.get((rule, cell))) else ""
            for rule in RIVALS
        ]
        row = [
            target.figure.value,
            cell.scenario,
            cell.noise,
            f"{cell.rps:g}",
            _number(target.figure, target.must),
            _number(target.figure, target.excellent),
            f"{_value(target.figure, measured)} {_interval(target.figure, measured)}",
            str(measured.runs),
            measured.against(target),
            *rivals,
        ]
        yield f"| {' | '.join(row)} |"


def _nulls(outcomes: Outcomes) -> Iterator[str]:
    yield "## Under exact nulls\n"
    yield (
        "A canary exactly at every tolerance (1.3 times the errors, 5 % slower, 1.05 times the wrong answers), held in "
        "its first step for an hour and judged every second: the share of rollouts in which any evidence of harm ever "
        "reached its threshold. At most alpha = 1 %.\n"
    )
    yield "| noise | req/s | P(sup E >= 1/alpha) | runs |"
    yield "|---|---:|---:|---:|"
    for cell in NULLS:
        found = outcomes.get((HELD, cell))
        if found:
            measured = measure(Figure.FALSE_ROLLBACK, found)
            value = f"{_value(Figure.FALSE_ROLLBACK, measured)} {_interval(Figure.FALSE_ROLLBACK, measured)}"
            yield f"| {cell.noise} | {cell.rps:g} | {value} | {measured.runs} |"


def _others(outcomes: Outcomes) -> Iterator[str]:
    yield "## Other noise and other versions\n"
    yield (
        "One noise at a time for an identical version, and versions for which nothing is laid down. The one that the "
        "judge gets wrong is gc at much traffic: each version's latency climbs by 30 % and drops, every minute and a "
        "half and out of step with the other's, so that for some seconds one of them really is that much slower; the "
        "medians of five minutes, by which history is read, do not show it. An owner of such a server says so: "
        f"`latency_tolerance: {TOLERATED:g}`.\n"
    )
    yield "| version | noise | req/s | runs | rolled back | got all traffic | minutes to it, median | rolled back for |"
    yield "|---|---|---:|---:|---:|---:|---:|---|"
    targets = {target.cell for target in TARGETS}
    for (rule, cell), found in outcomes.items():
        if rule not in ("Penstock", TOLERANT) or cell in targets or cell in NULLS:
            continue
        rolled = measure(Figure.FALSE_ROLLBACK, found)
        full, minutes = measure(Figure.MISSED, found), measure(Figure.MINUTES, found)
        causes = Counter(outcome.reason for outcome in found if outcome.rolled_back)
        row = [
            cell.scenario,
            cell.noise if rule == "Penstock" else f"{cell.noise}, `latency_tolerance: {TOLERATED:g}`",
            f"{cell.rps:g}",
            str(len(found)),
            f"{_value(Figure.FALSE_ROLLBACK, rolled)} {_interval(Figure.FALSE_ROLLBACK, rolled)}",
            _value(Figure.MISSED, full),
            _value(Figure.MINUTES, minutes),
            ", ".join(f"{cause} ({count})" for cause, count in causes.most_common(2)),
        ]
        yield f"| {' | '.join(row)} |"


def _value(figure: Figure, measured: Measured) -> str:
    return _number(figure, measured.value)


def _interval(figure: Figure, measured: Measured) -> str:
    return f"[{_number(figure, measured.low)}, {_number(figure, measured.high)}]"


def _number(figure: Figure, value: float) -> str:
    if not math.isfinite(value):
        return "never" if value == math.inf else "-"
    if figure in _SHARES:
        return f"{100 * value:.{0 if value > 0.1 else 1 if value > 0.01 else 2}f} %" if value else "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
