"""What is measured: bodies of rising size and batches of rising length, by each protocol, through Penstock's Envoy.

Each point is a case of the gateway bench, so that answers are checked and failures counted as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from loadtest.bench.gateway.calls import INFER_PATH, BenchModel, Wire
from loadtest.bench.gateway.cases import Case
from loadtest.bench.gateway.load import Shape

FRONT = "penstock_logged"
_ANSWER = np.array([0.25, 0.5, 0.125, 1.5], dtype=np.float32)
_SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((4,), 1),
    ((256,), 1),
    ((4096,), 1),
    ((3, 104, 104), 1),
    ((3, 224, 224), 1),
    ((4,), 16),
    ((4,), 256),
    ((256,), 16),
    ((1024,), 64),
)
"""Shape of a row, and rows; pictures as nested arrays in JSON. Answers are four floats per row."""


class Protocol(StrEnum):
    GRPC = "typed gRPC"
    JSON_H2 = "typed JSON over HTTP/2"
    JSON_H1 = "typed JSON over HTTP/1.1"
    INFER = "Open Inference gRPC"


@dataclass(frozen=True, slots=True)
class Rung:
    """One case, and what the fit needs to know of it. `body_bytes` is the request's body as it is sent."""

    protocol: Protocol
    floats: int
    rows: int
    body_bytes: int
    case: Case


def models() -> tuple[BenchModel, ...]:
    """One model per shape and batch length."""
    random = np.random.default_rng(7)
    return tuple(
        BenchModel(
            name=f"f{math.prod(shape)}-r{rows}",
            x=random.normal(size=shape).round(6).astype(np.float32),
            y=_ANSWER,
            rows=rows,
        )
        for shape, rows in _SHAPES
    )


def rungs(models: Sequence[BenchModel], requests: int) -> list[Rung]:
    """Every model by every protocol; `requests` is the number per turn for small bodies, larger ones get fewer."""
    return [_rung(protocol, model, requests) for protocol in Protocol for model in models]


def _rung(protocol: Protocol, model: BenchModel, requests: int) -> Rung:
    contract = model.contract
    ways: dict[Protocol, tuple[Wire, str, bytes, Callable[[bytes], None]]] = {
        Protocol.GRPC: (Wire.GRPC, contract.predict_grpc_path, model.typed_request(), model.check_typed),
        Protocol.JSON_H2: (Wire.JSON_H2, contract.predict_http_path, model.json_request(), model.check_json),
        Protocol.JSON_H1: (Wire.JSON_H1, contract.predict_http_path, model.json_request(), model.check_json),
        Protocol.INFER: (Wire.GRPC, INFER_PATH, model.infer_request(), model.check_infer),
    }
    wire, path, body, check = ways[protocol]
    name = f"{protocol}, {model.x.size:,} floats x {model.rows}"
    case = Case(name, FRONT, wire, path, body, check, _shape(wire, len(body), requests))
    return Rung(protocol, model.x.size, model.rows, len(body), case)


def _shape(wire: Wire, body_bytes: int, requests: int) -> Shape:
    """Turns of about the same time, and fewer at once where bodies are large."""
    large = body_bytes > 100_000
    connections, streams = (8 if large else 16, 1) if wire is Wire.JSON_H1 else (4, 4) if large else (8, 8)
    return Shape(max(requests // (1 + body_bytes // 40_000), connections * streams), connections, streams)
