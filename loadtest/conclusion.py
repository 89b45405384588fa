"""What a load test says at its end: met or not, by which figure, and what else a reader must know. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.figures import Figures
from loadtest.objectives import Finding, judge
from loadtest.scenarios import Scenario

LAG_SHARE = 0.1
"""The generator's own lateness is worth a warning when its p99 is more than this share of the p99 that is told ..."""

LAG_FLOOR_MS = 2.0
"""... and more than this."""

QUEUED_MS = 1.0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`met` decides the exit status. `verdict` says it in a sentence with the figures; `cautions` what to mistrust."""

    met: bool
    verdict: str
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...]


def conclude(figures: Figures) -> Conclusion:
    plan = figures.record.plan
    findings = judge(
        plan.objectives,
        latency_ms={p: figures.latencies.quantile_ms(p / 100) for p in plan.objectives.latency_ms},
        requests=figures.requests,
        failed=figures.failed,
        lost=figures.lost,
    )
    met = figures.requests > 0 and all(finding.met for finding in findings) and not figures.record.stopped_early
    return Conclusion(met, _verdict(figures, findings, met), findings, tuple(_cautions(figures)))


def _verdict(figures: Figures, findings: tuple[Finding, ...], met: bool) -> str:
    record = figures.record
    if record.stopped_early:
        return f"Not met: {record.stopped_early}."
    if not figures.requests:
        return "Not met: no request was sent."
    if findings:
        # What failed comes first.
        told = sorted(findings, key=lambda finding: finding.met)
        words = f"{'Met' if met else 'Not met'}: {'; '.join(map(str, told))}."
    else:
        words = f"No objectives were given; {figures.failed:,} of {figures.requests:,} requests failed."
    if record.plan.scenario is Scenario.CANARY:
        own = figures.failed - figures.lost
        blamed = f"; {own:,} failed by version {record.candidate}'s own fault" if own else ""
        words += f" The rollout of version {record.candidate} {record.outcome}{blamed}."
    knee = figures.knee()
    if knee is not None:
        carried = "below the first step" if knee.rate is None else f"at about {knee.rate:,.0f}/s"
        words += f" Knee {carried}: {knee.why}." if knee.found else f" {knee.why[0].upper()}{knee.why[1:]}."
    return words


def _cautions(figures: Figures) -> list[str]:
    generator = figures.generator()
    cautions = []
    if generator.at_its_limit:
        cautions.append(
            f"The load generator itself was at its limit in {generator.busy_seconds} s (up to {generator.busiest:.0%} "
            "of a core): what is slow there is not the server. Send from more processes (--workers)."
        )
    lag, p99 = generator.lag.quantile_ms(0.99) or 0.0, figures.latencies.quantile_ms(0.99)
    if p99 is not None and lag > LAG_FLOOR_MS and lag > LAG_SHARE * p99:
        cautions.append(
            f"Requests were sent up to {lag:,.1f} ms late (p99) by the load generator's own machine; that is in the "
            f"latencies, whose p99 is {p99:,.1f} ms."
        )
    waited = generator.queued.share_above(QUEUED_MS * 1000)
    if waited > 0.01 and not figures.record.plan.closed:
        cautions.append(
            f"{waited:.0%} of the requests waited for a free user, because all {figures.record.plan.most_users} waited "
            "for answers. The wait is in the latencies; more users (--users) send it to the server instead."
        )
    return cautions
