"""An inference server fast enough that Envoy is the bottleneck: it speaks HTTP/2 frames and thinks about nothing.

Started by `fronts` as a process of its own: one port per answer, always that answer. Headers are not decoded, so that a
request costs a few microseconds; a server that takes longer leaves Envoy idle in between, and the wake-ups hide what is
measured.

A front that passes on something else than the prediction it was sent must not look fast. So a port accepts only its own
requests (`accepting`) and refuses others with INVALID_ARGUMENT: the first request of each size is read as a message and
its values compared, later ones are taken by a size that was right. That requests are translated right in every case is
tested against real servers, in tests/lua and tests/e2e.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as oip

from gateway.contract.descriptor import message_classes
from loadtest.bench.gateway.calls import BenchModel

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
_WORDS: Final = b"the stub expected a prediction of the bench"
_REFUSED: Final = _RESPONSE + b"\x00\x0bgrpc-status\x013" + b"\x00\x0cgrpc-message" + bytes([len(_WORDS)]) + _WORDS
_LONGEST: Final = 1024 * 1024
"""Bodies beyond this are not kept to be read, so never right; those of the bench are smaller. The access log's stream,
which has no end, is not kept either."""


class Kind(StrEnum):
    """What a port takes."""

    TYPED = "typed"
    INFER = "infer"
    ANY = "any"


@dataclass(slots=True)
class Accepting:
    """What one port takes, of all its connections. `reads` says whether a whole body is right."""

    reads: Callable[[bytes], bool]
    sizes: set[int] = field(default_factory=set)

    def right(self, size: int, body: Callable[[], bytes]) -> bool:
        """Whether a request of this size is one of the bench's; `body` gives its bytes if they must be read."""
        if size in self.sizes:
            return True
        if not self.reads(body()):
            return False
        self.sizes.add(size)
        return True


def accepting(kind: Kind, models: Sequence[BenchModel]) -> Accepting | None:
    """What a port of this kind takes: requests of any of the models. None: anything goes."""
    match kind:
        case Kind.TYPED:
            return Accepting(lambda body: any(_is_typed(body, model) for model in models))
        case Kind.INFER:
            return Accepting(lambda body: any(_is_inference(body, model) for model in models))
        case Kind.ANY:
            return None


def _is_typed(body: bytes, model: BenchModel) -> bool:
    """Whether it is the model's typed request, however its encoder writes lists of numbers."""
    read = message_classes(model.contract).request.FromString
    message = _unframed(body, read)
    return message is not None and message == read(model.typed_request()[5:])


def _is_inference(body: bytes, model: BenchModel) -> bool:
    """Whether it is a ModelInferRequest with so many rows of the model's values as its shape says."""
    message = _unframed(body, oip.ModelInferRequest.FromString)
    if message is None or len(message.inputs) != 1 or not message.model_name:
        return False
    (tensor,) = message.inputs
    values = b"".join(message.raw_input_contents) or np.array(tensor.contents.fp32_contents, "<f4").tobytes()
    rows = tensor.shape[0] if tensor.shape else 0
    return tensor.name == "x" and tensor.datatype == "FP32" and values == model.x.tobytes() * rows


def _unframed(body: bytes, read: Callable[[bytes], Any]) -> Any:
    """The one message that the body is; None when it is anything else."""
    if len(body) < 5 or body[:5] != b"\0" + (len(body) - 5).to_bytes(4, "big"):
        return None
    try:
        return read(body[5:])
    except DecodeError:
        return None


def frame(kind: int, flags: int, stream: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream + payload


class StubConnection(asyncio.Protocol):
    """One HTTP/2 connection: every finished request that is right gets `answer`, a framed gRPC message, and
    `grpc-status: 0`.

    Answers are far smaller than the windows that Envoy and h2load open and refill, so those are not tracked.
    """

    def __init__(self, answer: bytes, accepting: Accepting | None = None) -> None:
        self._accepting = accepting
        self._bodies: dict[bytes, list[bytes]] = {}
        self._sizes: dict[bytes, int] = {}
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
            if kind <= _HEADERS:
                stream = data[at + 5 : at + 9]
                if kind == _DATA:
                    self._received += size
                    self._keep(stream, data[at + _HEAD : following])
                if flags & _END_STREAM:
                    if self._right(stream):
                        out += (one, stream, two, stream, three, stream, four)
                    else:
                        out.append(frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _REFUSED))
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

    def _keep(self, stream: bytes, part: bytes) -> None:
        """Of a request that has not ended: its size, and its bytes while they may have to be read."""
        size = self._sizes.get(stream, 0) + len(part)
        self._sizes[stream] = size
        if size <= _LONGEST:
            self._bodies.setdefault(stream, []).append(part)
        else:
            self._bodies.pop(stream, None)

    def _right(self, stream: bytes) -> bool:
        size, parts = self._sizes.pop(stream, 0), self._bodies.pop(stream, ())
        return self._accepting is None or self._accepting.right(size, lambda: b"".join(parts))


def _window_update(more: int) -> bytes:
    return frame(_WINDOW_UPDATE, 0, _CONNECTION, more.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class Port:
    """A port to listen on: its answer, and what it takes."""

    answer: bytes
    accepting: Accepting | None

    def connection(self) -> StubConnection:
        return StubConnection(self.answer, self.accepting)


def ports_of(models: Sequence[BenchModel]) -> list[Port]:
    """Those of each model, in the order of `Kind`."""
    answers = {
        Kind.TYPED: BenchModel.typed_response,
        Kind.INFER: BenchModel.infer_response,
        Kind.ANY: BenchModel.infer_response,
    }
    # One of each kind for all models: Open Inference calls of all of them may come to one port.
    takes = {kind: accepting(kind, models) for kind in Kind}
    return [Port(answers[kind](model), takes[kind]) for model in models for kind in Kind]


def read_model(path: Path) -> BenchModel:
    """A model as `fronts.stub` has written it."""
    with np.load(path) as arrays:
        return BenchModel(path.stem, arrays["x"], arrays["y"], int(arrays["rows"]))


async def serve(ports: Sequence[Port]) -> None:
    """Listen on a free port for each, print the ports on one line, and serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    servers = [await loop.create_server(port.connection, "127.0.0.1", 0) for port in ports]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await stopped.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(ports_of([read_model(Path(path)) for path in sys.argv[1:]])))
