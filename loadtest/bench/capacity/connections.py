"""What callers' connections cost Envoy: memory of one that is open and idle, CPU of one that is opened for one request.

Connections are written by hand, because what is wanted is thousands that stay open, each having carried one request.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.capacity.ladder import FRONT
from loadtest.bench.gateway.calls import SMALL
from loadtest.bench.gateway.cpu import process_time, resident_bytes
from loadtest.bench.gateway.fronts import Front, running
from loadtest.bench.gateway.stub import frame

_AT_ONCE = 50
_WARM_UP = 200
_PATIENCE_S = 60.0
_ANSWERED = b'"predictions"'


@dataclass(frozen=True, slots=True)
class Connections:
    """Figures of one protocol: bytes of Envoy's memory per idle connection; microseconds of CPU to open one, carry one
    request of four floats as JSON, and close it."""

    protocol: str
    count: int
    bytes_each: float
    us_each: float


def measure_connections(
    count: int, *, envoy_cpu: int, load_cpu: int, progress: Callable[[str], None]
) -> tuple[Connections, ...]:
    """`count` connections of each protocol, each protocol to a new Envoy, whose heap has no free space from before."""
    measured = []
    for protocol, request in (("HTTP/1.1", _http1()), ("HTTP/2", _http2())):
        with (
            tempfile.TemporaryDirectory(prefix="bench-connections-") as folder,
            running(Path(folder), (SMALL,), envoy_cpu=envoy_cpu, load_cpu=load_cpu, names=(FRONT,)) as fronts,
        ):
            measured.append(asyncio.run(_measure(protocol, request, fronts[FRONT], count)))
        progress(f"connections: {measured[-1]}")
    return tuple(measured)


async def _measure(protocol: str, request: bytes, front: Front, count: int) -> Connections:
    async with asyncio.timeout(_PATIENCE_S):
        await _close(await _open(front.port, request, _WARM_UP))
        memory, used = resident_bytes(front.pid), process_time(front.pid)
        opened = await _open(front.port, request, count)
        grown = resident_bytes(front.pid) - memory
        await _close(opened)
        await _close(await _open(front.port, request, 1))  # answered after the others' ends have been seen
        cpu = process_time(front.pid) - used
    return Connections(protocol, count, grown / count, cpu.used_ns / 1000 / count)


async def _open(port: int, request: bytes, count: int) -> list[asyncio.StreamWriter]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one() -> asyncio.StreamWriter:
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await reader.readuntil(_ANSWERED)
            return writer

    return await asyncio.gather(*(one() for _ in range(count)))


async def _close(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers))


def _http1() -> bytes:
    body = SMALL.json_request()
    head = f"POST {SMALL.contract.predict_http_path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _http2() -> bytes:
    """Preface, settings, and a request on stream 1 whose headers are literals (RFC 7541, section 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": SMALL.contract.predict_http_path,
        ":authority": "bench",
        "content-type": "application/json",
    }
    words = [(name.encode(), value.encode()) for name, value in headers.items()]
    block = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in words)
    stream = b"\0\0\0\x01"
    frames = frame(4, 0, bytes(4), b"") + frame(1, 4, stream, block) + frame(0, 1, stream, SMALL.json_request())
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames
