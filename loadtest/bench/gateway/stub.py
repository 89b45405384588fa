"""An inference server fast enough that Envoy is the bottleneck: it speaks HTTP/2 frames and thinks about nothing.

Started by `fronts` as a process of its own: one port per answer, always that answer. Headers are not decoded, so that a
request costs a few microseconds; a server that takes longer leaves Envoy idle in between, and the wake-ups hide what is
measured. That requests are translated right is tested against real servers, in tests/lua and tests/e2e.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = 9
"""Bytes of a frame's head: length (3), type, flags, stream (4). RFC 9113, section 4.1."""
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS: Final = 0x4
_CONNECTION: Final = bytes(4)
_INITIAL_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = 2**31 - 1

# RFC 7541: an indexed `:status: 200`, then literals that are not indexed, so that no state is kept.
_RESPONSE: Final = b"\x88" + b"\x0f\x10\x10application/grpc"
_TRAILERS: Final = b"\x00\x0bgrpc-status\x010"


def frame(kind: int, flags: int, stream: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream + payload


class StubConnection(asyncio.Protocol):
    """One HTTP/2 connection: every finished request gets `answer`, a framed gRPC message, and `grpc-status: 0`.

    Answers are far smaller than the windows that Envoy and h2load open and refill, so those are not tracked.
    """

    def __init__(self, answer: bytes) -> None:
        parts = (
            (_HEADERS, _END_HEADERS, _RESPONSE),
            (_DATA, 0, answer),
            (_HEADERS, _END_HEADERS | _END_STREAM, _TRAILERS),
        )
        # What stands between the three places where the stream's number goes.
        between = b"".join(frame(kind, flags, b"", payload) for kind, flags, payload in parts)
        first, second = 5, 5 + len(_RESPONSE) + 5
        third = second + len(answer) + 5
        self._parts = between[:first], between[first:second], between[second:third], between[third:]
        self._rest = b""
        self._greeted = False
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        windows = b"\x00\x04" + _LARGEST_WINDOW.to_bytes(4, "big")
        transport.write(frame(_SETTINGS, 0, _CONNECTION, windows) + _window_update(_LARGEST_WINDOW - _INITIAL_WINDOW))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        if not self._greeted:
            if end < len(_PREFACE):
                self._rest = data
                return
            if not data.startswith(_PREFACE):
                self._transport.abort()
                return
            self._greeted, at = True, len(_PREFACE)
        out: list[bytes] = []
        one, two, three, four = self._parts
        while end - at >= _HEAD:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            following = at + _HEAD + size
            if following > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _DATA:
                self._received += size
            if kind <= _HEADERS:
                if flags & _END_STREAM:
                    stream = data[at + 5 : at + 9]
                    out += (one, stream, two, stream, three, stream, four)
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                payload = data[at + _HEAD : following] if kind == _PING else b""
                out.append(frame(kind, _ACK, _CONNECTION, payload))
            at = following
        self._rest = data[at:]
        if self._received >= _LARGEST_WINDOW // 4:
            out.append(_window_update(self._received))
            self._received = 0
        if out:
            self._transport.write(b"".join(out))


def _window_update(more: int) -> bytes:
    return frame(_WINDOW_UPDATE, 0, _CONNECTION, more.to_bytes(4, "big"))


async def serve(answers: list[bytes]) -> None:
    """Listen on a free port per answer, print the ports on one line, and serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    servers = [await loop.create_server(partial(StubConnection, answer), "127.0.0.1", 0) for answer in answers]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await stopped.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve([Path(path).read_bytes() for path in sys.argv[1:]]))
