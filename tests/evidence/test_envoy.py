"""Counts of a fleet of Envoys: sums where all can be read, and missing, with a reason, where one cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adapters.server import Address
from rollout.evidence.envoy import EnvoyEvidence
from rollout.ports import ArmCounts, Tick
from tests.clocks import ManualClock


@dataclass
class Admin:
    """One Envoy's statistics as text. `requests` by (version, gs, flags, code); `broken` is answered in their place."""

    uptime: int = 100
    requests: dict[tuple[int, str, str, str], int] = field(default_factory=dict)
    fast: dict[int, int] = field(default_factory=dict)
    slow: dict[int, int] = field(default_factory=dict)
    broken: bytes = b""
    address: Address = field(default_factory=lambda: Address("127.0.0.1", 0))

    def text(self) -> str:
        lines = [f"envoy_server_uptime {self.uptime}"]
        for (version, gs, flags, code), count in self.requests.items():
            tags = f'model="digits",version="{version}",gs="{gs}",flags="{flags}",code="{code}"'
            lines.append(f"envoy_penstock_requests{{{tags}}} {count}")
        for version, fast in self.fast.items():
            tags = f'model="digits",version="{version}",gs="0"'
            everything = fast + self.slow.get(version, 0)
            lines.append(f'envoy_penstock_latency_bucket{{{tags},le="990"}} {fast}')
            lines.append(f'envoy_penstock_latency_bucket{{{tags},le="+Inf"}} {everything}')
        return "\n".join(lines) + "\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = self.text().encode()
        ok = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
        writer.write(self.broken or ok)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def fleet(count: int) -> AsyncIterator[tuple[list[Admin], EnvoyEvidence, ManualClock]]:
    admins = [Admin() for _ in range(count)]
    servers = [await asyncio.start_server(admin.serve, "127.0.0.1", 0) for admin in admins]
    for admin, server in zip(admins, servers, strict=True):
        admin.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    clock = ManualClock()
    evidence = EnvoyEvidence(admins=[admin.address for admin in admins], clock=clock)
    try:
        yield admins, evidence, clock
    finally:
        await evidence.aclose()
        for server in servers:
            server.close()


async def read(evidence: EnvoyEvidence, clock: ManualClock) -> Tick:
    clock.seconds += 1.0
    return (await evidence.read(["digits"]))["digits"]


OK = ("0", "-", "200")


async def test_counts_and_latency_of_all_envoys_add_up() -> None:
    async with fleet(2) as (admins, evidence, clock):
        await read(evidence, clock)
        for index, admin in enumerate(admins):
            admin.requests = {(1, *OK): 10 + index, (2, *OK): 3, (2, "13", "-", "500"): 1}
            admin.fast, admin.slow = {1: 9, 2: 3}, {1: 1 + index}
        tick = await read(evidence, clock)
        assert tick.edges_us == (1000,)
        assert tick.arms == {
            1: ArmCounts(ok=21, latency=(18, 3)),
            2: ArmCounts(ok=6, bad=2, latency=(6, 0)),
        }


async def test_half_of_a_fleet_is_no_evidence() -> None:
    async with fleet(2) as (admins, evidence, clock):
        await read(evidence, clock)
        for admin in admins:
            admin.requests = {(1, *OK): 10}
        admins[1].broken = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        tick = await read(evidence, clock)
        assert tick.missing.startswith(f"Envoy's statistics at {admins[1].address} could not be read")
        assert tick.arms == {}
        admins[1].broken = b""
        tick = await read(evidence, clock)
        assert (tick.missing, tick.seconds, tick.arms) == ("", 2.0, {1: ArmCounts(ok=20)})


async def test_an_answer_that_is_no_exposition_is_missing() -> None:
    async with fleet(1) as ((admin,), evidence, clock):
        await read(evidence, clock)
        admin.broken = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n<a>"
        assert "could not be read: line 1" in (await read(evidence, clock)).missing


async def test_one_restarted_envoy_misses_one_tick() -> None:
    async with fleet(2) as (admins, evidence, clock):
        for admin in admins:
            admin.requests = {(1, *OK): 100}
        await read(evidence, clock)
        admins[0].uptime, admins[0].requests = 0, {(1, *OK): 2}
        assert "restarted, its counters began anew" in (await read(evidence, clock)).missing
        admins[0].requests[(1, *OK)] = 5
        admins[1].requests[(1, *OK)] = 101
        assert (await read(evidence, clock)).arms == {1: ArmCounts(ok=4)}


async def test_a_counter_that_fell_without_a_restart_is_missing() -> None:
    async with fleet(1) as ((admin,), evidence, clock):
        admin.requests = {(1, *OK): 100}
        await read(evidence, clock)
        admin.requests = {(1, *OK): 99}
        assert "began anew" in (await read(evidence, clock)).missing


async def test_statuses_of_json_callers_count_as_the_servers_said_them() -> None:
    """The HTTP code of a JSON answer says less than the gRPC status behind it: 500 is 13 and 2."""
    async with fleet(1) as ((admin,), evidence, clock):
        admin.requests = {(1, *OK): 0}
        await read(evidence, clock)
        admin.requests = {
            (1, *OK): 5,
            (1, "3", "-", "400"): 1,
            (1, "13", "-", "500"): 2,
            (1, "14", "URX", "503"): 3,
            (1, "none", "UT", "504"): 4,
            (1, "none", "DC", "0"): 6,
            (1, "8", "-", "429"): 7,
        }
        assert (await read(evidence, clock)).arms == {1: ArmCounts(ok=5, bad=16, caller=7)}


async def test_timeouts_are_failures_and_in_no_histogram() -> None:
    """A histogram that lost its slowest requests would make a version that times out look fast."""
    async with fleet(1) as ((admin,), evidence, clock):
        admin.requests, admin.fast = {(2, *OK): 0}, {2: 0}
        await read(evidence, clock)
        admin.requests, admin.fast = {(2, *OK): 4, (2, "none", "UT", "504"): 6}, {2: 4}
        arm = (await read(evidence, clock)).arms[2]
        assert (arm.ok, arm.bad, sum(arm.latency)) == (4, 6, 4)
