"""What is measured, against which other case, and the targets: the list the report is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.bench.gateway.calls import INFER_PATH, LARGE, SMALL, BenchModel, Wire
from loadtest.bench.gateway.load import Shape


@dataclass(frozen=True, slots=True)
class Target:
    """At most this much; None where there is no such limit."""

    ratio: float
    added_us: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """`front` is a name from `fronts`; `against` the name of the case it is compared with ("" for a baseline).
    `model_header`: for an Envoy without the filter that names the model."""

    name: str
    front: str
    wire: Wire
    path: str
    body: bytes
    check: Callable[[bytes], None]
    shape: Shape
    against: str = ""
    target: Target | None = None
    model_header: str = ""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        named = (("x-penstock-model", self.model_header),) if self.model_header else ()
        return (*self.wire.headers, *named)


PLAIN = "pass-through: typed gRPC, 4 floats"
PLAIN_INFER = "pass-through: Open Inference gRPC, 4 floats"
PLAIN_LARGE = "pass-through: typed gRPC, 602 KB"
JSON_H1 = "typed JSON over HTTP/1.1, 4 floats"
TRANSCODER = "grpc_json_transcoder: JSON over HTTP/1.1, 4 floats"
TRANSCODER_LUA = "grpc_json_transcoder before typed gRPC: JSON over HTTP/1.1, 4 floats"

LARGE_JSON_H2 = "typed JSON over HTTP/2, 150,528 floats"
LARGE_JSON_H1 = "typed JSON over HTTP/1.1, 150,528 floats"
FASTAPI = "FastAPI + orjson + tritonclient: JSON over HTTP/1.1, 150,528 floats"

_H2_CONNECTIONS, _H2_STREAMS, _H1_CONNECTIONS = 8, 8, 16


def cases(requests: int) -> list[Case]:
    """All cases; `requests` is the number per turn for small bodies, larger ones get fewer."""
    small = Shape(requests, _H2_CONNECTIONS, _H2_STREAMS)
    small_h1 = Shape(requests, _H1_CONNECTIONS, 1)
    large = Shape(max(requests // 15, 100), 4, 4)
    large_json = Shape(max(requests // 100, 50), 4, 4)
    large_json_h1 = Shape(max(requests // 100, 50), 8, 1)

    def typed(model: BenchModel, name: str, front: str, shape: Shape, against: str, target: Target | None) -> Case:
        path, body = model.contract.predict_grpc_path, model.typed_request()
        return Case(name, front, Wire.GRPC, path, body, model.check_typed, shape, against, target)

    def part(name: str, front: str) -> Case:
        """A part of the way of typed gRPC that leaves the message as it is: the answer is the server's own."""
        path, body, model = SMALL.contract.predict_grpc_path, SMALL.typed_request(), SMALL.contract.key
        return Case(name, front, Wire.GRPC, path, body, SMALL.check_infer, small, PLAIN, None, model)

    def infer(name: str, front: str, against: str, target: Target | None) -> Case:
        body = SMALL.infer_request()
        return Case(name, front, Wire.GRPC, INFER_PATH, body, SMALL.check_infer, small, against, target)

    def json(
        model: BenchModel, name: str, front: str, wire: Wire, shape: Shape, against: str, target: Target | None
    ) -> Case:
        transcoded = front.startswith("transcoder")
        path = model.contract.predict_grpc_path if transcoded else model.contract.predict_http_path
        return Case(name, front, wire, path, model.json_request(), model.check_json, shape, against, target)

    h1, h2 = Wire.JSON_H1, Wire.JSON_H2
    return [
        typed(SMALL, PLAIN, "plain", small, "", None),
        infer(PLAIN_INFER, "plain", "", None),
        typed(SMALL, "typed gRPC, 4 floats", "penstock", small, PLAIN, Target(1.7, added_us=17)),
        part("of that: connection manager, routes, statistics", "penstock_no_lua"),
        part("of that: the same and model.lua", "penstock_model_lua"),
        typed(SMALL, "typed gRPC, 4 floats, with the access log stream", "penstock_logged", small, PLAIN, None),
        json(SMALL, "typed JSON over HTTP/2, 4 floats", "penstock", h2, small, PLAIN, Target(1.8, added_us=19)),
        infer("Open Inference gRPC, 4 floats", "penstock", PLAIN_INFER, Target(1.35)),
        json(SMALL, TRANSCODER, "transcoder", h1, small_h1, "", None),
        json(SMALL, TRANSCODER_LUA, "transcoder_lua", h1, small_h1, "", None),
        json(SMALL, JSON_H1, "penstock", h1, small_h1, TRANSCODER, Target(0.8)),
        typed(LARGE, PLAIN_LARGE, "plain", large, "", None),
        typed(LARGE, "typed gRPC, 602 KB", "penstock", large, PLAIN_LARGE, Target(1.5)),
        json(LARGE, LARGE_JSON_H2, "penstock", h2, large_json, PLAIN_LARGE, None),
        json(LARGE, FASTAPI, "fastapi", h1, large_json_h1, "", None),
        json(LARGE, LARGE_JSON_H1, "penstock", h1, large_json_h1, FASTAPI, Target(0.35)),
    ]
