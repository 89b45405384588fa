"""The capacity page: formulas with their residuals, worked examples, connections, the control plane's fleet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from loadtest.bench.capacity.connections import Connections
from loadtest.bench.capacity.fit import Fit, Point
from loadtest.bench.capacity.fleet import Fleet, Fleets
from loadtest.bench.capacity.ladder import Protocol, Rung
from loadtest.bench.gateway.measure import Measured
from loadtest.bench.gateway.report import SATURATED, machine, software

UTILISATION = 0.6
"""Of a core, in the worked examples: room for bursts, and for one Envoy of three to be away."""

_PUBLISH_S = 10.0
"""How long a publication waits for every Envoy (`AdsServer.publish`)."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What requests cost. `peak_bytes` is the most memory that Envoy had while it was measured."""

    rungs: Sequence[tuple[Rung, Measured]]
    idle_bytes: int
    peak_bytes: int

    @property
    def failed(self) -> int:
        return sum(measured.failed for _, measured in self.rungs)

    def points(self, protocol: Protocol) -> list[Point]:
        return [_point(rung, measured) for rung, measured in self.rungs if rung.protocol is protocol]


def page(
    costs: Costs,
    fits: Mapping[Protocol, Fit],
    connections: Sequence[Connections],
    fleets: Fleets | None,
    *,
    command: str,
    charts: str,
) -> str:
    """docs/benchmarks/capacity.md; `charts` is what the charts' names begin with."""
    sizes = [rung.body_bytes for rung, _ in costs.rungs]
    requests = sum(measured.requests for _, measured in costs.rungs)
    return f"""# Capacity

How many cores of Envoy a load needs, and how many Envoys one control plane feeds. Written by `{command}`; do not edit.

- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; load average {os.getloadavg()[0]:.1f} at the end.
- {software()}.
- Microseconds belong to the machine; on another one, run `make bench-capacity` and read its own formula.

## Cores

    cores = requests per second * (a + b * S + c * (rows - 1)) / 1,000,000 / utilisation

S is the body of the request in bytes as it is sent, rows the length of its batch.

| protocol | a, us per request | 1000 b, us per KB | c, us per row | requests/s of one core, 4 floats | worst residual |
|---|---|---|---|---|---|
{_lines(_formula(protocol, fit, costs.points(protocol)) for protocol, fit in fits.items())}

![CPU per request by size of its body, measured and fitted]({charts}-cost.svg)

Envoys on cores that are busy {UTILISATION:.0%} of the time:

| request | protocol | us | requests/s per core | cores for 1,000/s | cores for 20,000/s |
|---|---|---|---|---|---|
{_lines(_example(rung, fits[rung.protocol]) for rung in _examples(costs))}

{_worked(costs, fits)}

Envoy's worker threads share neither requests nor Lua states, so cores add up as long as connections spread over them:
a worker keeps the connections that it accepted, and one HTTP/2 connection never uses more than one core. Give Envoys
several connections per core, or several Envoys behind a balancer.

### How well the formula fits

Each point is the best of {len(costs.rungs[0][1].turns)} turns, saturated unless its busy share says otherwise; the
residual is what the formula says over what was measured. {requests:,} requests, {costs.failed:,} failed. Bodies ranged
from {min(sizes):,} to {max(sizes):,} bytes: outside that it is a guess.

| protocol | floats per row | rows | body, bytes | us measured (worst turn) | us by formula | residual | busy |
|---|---|---|---|---|---|---|---|
{_lines(_residual(rung, measured, fits[rung.protocol]) for rung, measured in costs.rungs)}

## Connections and memory

| connection | memory, open and idle | CPU of one opened for one request |
|---|---|---|
{_lines(f"| {c.protocol} | {c.bytes_each / 1024:.0f} KiB | {c.us_each:.0f} us |" for c in connections)}

- Memory is Envoy's own (resident), over {connections[0].count:,} connections that have carried one request each; what
  the kernel keeps per socket comes on top. CPU is for opening, one prediction of 4 floats as typed JSON, and closing.
- Envoy with {len(costs.rungs) // len(Protocol)} models has {_mb(costs.idle_bytes)} before the first request, and had \
{_mb(costs.peak_bytes)} at most during this measurement, with
  up to 16 of the largest bodies in flight: a body is held whole while it is translated.

## What the formula leaves out

- TLS: neither its handshakes nor its bytes are measured; callers' port is plain text.
- Inference: the server behind answers at once. Its cores are a capacity plan of their own (`penstock load`).
- Answers: four floats per row. A model that answers with large tensors pays for those bytes as well.
- Mirrored requests (the shadow step), requests that fail, and gRPC-Web or Connect callers.
- What the bytes are. JSON here has six decimals per float; pictures are nested arrays, which cost more per byte than
  the flat rows of batches, and one b per protocol lies between the two.
- The load generator and the stub share the other core of the machine. Only Envoy's own CPU is counted, so that they
  take nothing from the figures but the quiet between requests: a point below {SATURATED:.0%} busy says too much.
{_fleets(fleets, charts) if fleets else ""}"""


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _point(rung: Rung, measured: Measured) -> Point:
    return Point(rung.body_bytes, rung.rows, measured.best.us_per_request)


def _formula(protocol: Protocol, fit: Fit, points: Sequence[Point]) -> str:
    worst = max((fit.residual(point) for point in points), key=abs)
    carries = 1e6 / fit.us(min(point.body_bytes for point in points))
    return (
        f"| {protocol} | {fit.request_us:.1f} | {fit.byte_us * 1000:.2f} | {fit.row_us:.2f} | {carries:,.0f} | "
        f"{worst:+.0%} |"
    )


def _examples(costs: Costs) -> list[Rung]:
    """Every protocol with the smallest and the largest single row and the largest batch."""
    rungs = [rung for rung, _ in costs.rungs]
    single = [rung.floats for rung in rungs if rung.rows == 1]
    batch = max((rung for rung in rungs if rung.rows > 1), key=lambda rung: rung.floats * rung.rows)
    wanted = [(min(single), 1), (max(single), 1), (batch.floats, batch.rows)]
    return [rung for size in wanted for rung in rungs if (rung.floats, rung.rows) == size]


def _example(rung: Rung, fit: Fit) -> str:
    us = fit.us(rung.body_bytes, rung.rows)
    what = f"{rung.floats:,} floats" + (f" x {rung.rows}" if rung.rows > 1 else "")
    cores = [f"{fit.cores(rate, rung.body_bytes, rung.rows, utilisation=UTILISATION):,.1f}" for rate in (1_000, 20_000)]
    return (
        f"| {what}, {rung.body_bytes:,} bytes | {rung.protocol} | {us:,.0f} | {UTILISATION * 1e6 / us:,.0f} | "
        f"{' | '.join(cores)} |"
    )


def _worked(costs: Costs, fits: Mapping[Protocol, Fit]) -> str:
    """One example with its arithmetic written out."""
    rung = max(
        (rung for rung, _ in costs.rungs if rung.protocol is Protocol.JSON_H1 and rung.rows == 1),
        key=lambda rung: rung.body_bytes,
    )
    fit, rate = fits[rung.protocol], 500
    cores = fit.cores(rate, rung.body_bytes, utilisation=UTILISATION)
    binary = next(r for r, _ in costs.rungs if r.protocol is Protocol.GRPC and (r.floats, r.rows) == (rung.floats, 1))
    instead = fits[Protocol.GRPC].cores(rate, binary.body_bytes, utilisation=UTILISATION)
    return (
        f"Written out: {rate} pictures per second as {rung.protocol}, {rung.body_bytes:,} bytes each, are {rate} *\n"
        f"({fit.request_us:.1f} + {fit.byte_us:.5f} * {rung.body_bytes:,}) / 1,000,000 / {UTILISATION:g} = "
        f"{cores:.1f} cores. The same as {Protocol.GRPC}, {binary.body_bytes:,} bytes each, are {instead:.1f}."
    )


def _residual(rung: Rung, measured: Measured, fit: Fit) -> str:
    point = _point(rung, measured)
    return (
        f"| {rung.protocol} | {rung.floats:,} | {rung.rows} | {rung.body_bytes:,} | {point.us:,.1f} "
        f"({measured.worst_us:,.1f}) | {fit.us(point.body_bytes, point.rows):,.1f} | {fit.residual(point):+.1%} | "
        f"{measured.best.busy:.0%} |"
    )


def _fleets(fleets: Fleets, charts: str) -> str:
    largest = fleets.sizes[-1]
    renewal_s = largest.heartbeat.control_s / largest.envoys
    publication_s = largest.one_more.control_s / largest.envoys
    most = min(0.5 / renewal_s, _PUBLISH_S / 2 / (largest.one_more.seconds / largest.envoys))
    memory = (largest.resident_bytes - fleets.resident_bytes) / largest.envoys / 1024
    return f"""
## Envoys of one control plane

Simulated Envoys, each with a gRPC connection and a delta ADS stream of its own, before the real registry, routing and
ADS server with {fleets.models:,} models. A change has reached all when every Envoy has acknowledged it. Times are
medians, CPU is the control plane's, memory is what it grew by.

| Envoys | all join | one more model at all | CPU | weight change at all | CPU | renewal each second | memory |
|---|---|---|---|---|---|---|---|
{_lines(_fleet(fleet, fleets.resident_bytes) for fleet in fleets.sizes)}

![Time of changes and CPU by number of Envoys]({charts}-fleet.svg)

- Per Envoy: {renewal_s * 1e6:,.0f} us of CPU for each renewal of the lease, {publication_s * 1e6:,.0f} us for each \
publication, {memory:,.0f} KiB of memory.
- A control plane uses one core. With half of it for renewals, and publications in half of the {_PUBLISH_S:g} s after
  which they are reported as not acknowledged, it feeds about {most // 100 * 100:,.0f} Envoys: drawn out from the
  largest fleet measured, {largest.envoys:,}.
- Envoys join as after a restart of the control plane: all at once, saying what they hold. The first, which held
  nothing, took {fleets.sizes[0].joined.seconds:.1f} s. Many that are empty at once are not measured: each takes the \
whole configuration.
- The simulated Envoys share one Python process. For one more model in the largest fleet it used \
{largest.one_more.envoys_s:.2f} s of CPU,
  part of the time above; real Envoys work side by side, and take a moment to build their routes.
- Access logs for feedback and the judge's evidence go to the control plane as well, and are not in these figures.
"""


def _fleet(fleet: Fleet, before_bytes: int) -> str:
    return (
        f"| {fleet.envoys:,} | {fleet.joined.seconds:.2f} s | {fleet.one_more.seconds * 1000:,.0f} ms | "
        f"{fleet.one_more.control_s * 1000:,.0f} ms | {fleet.weight.seconds * 1000:,.0f} ms | "
        f"{fleet.weight.control_s * 1000:,.0f} ms | {fleet.heartbeat.control_s:.1%} of a core | "
        f"{_mb(fleet.resident_bytes - before_bytes)} |"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
