"""The four ways to ask a model, by the names that a load test's options and reports use."""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """What a user speaks."""

    JSON = "json"
    GRPC = "grpc"
    INFER_HTTP = "oip-http"
    INFER_GRPC = "oip-grpc"

    @property
    def typed(self) -> bool:
        return self in (Protocol.JSON, Protocol.GRPC)

    @property
    def is_grpc(self) -> bool:
        return self in (Protocol.GRPC, Protocol.INFER_GRPC)
