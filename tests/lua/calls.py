"""What the tests through the real Envoy have in common: a stub's answers, calls by typed gRPC, and their errors."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests.lua import vectors
from tests.lua.vectors import Model

ROWS = {"instances": [{"x": [1, 2, 3, 4]}, {"x": [5, 6, 7, 8.5]}]}


def answers(model: Model, name: str = "digits.3") -> Any:
    """One prediction per row: the label is the row's first value."""

    def answer(request: Any) -> Any:
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(-1, 4)
        p = np.tile(np.array([[0.1, 0.7, 0.2]], np.float32), (len(x), 1))
        response = vectors.answer(model, [x[:, 0].astype(np.int64), p], identity=request.id)
        response.model_name = name
        return response

    return answer


def predict(channel: grpc.aio.Channel, model: Model) -> Any:
    return channel.unary_unary(
        model.contract.predict_grpc_path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=model.classes.response.FromString,
    )


def typed(model: Model, *rows: list[float]) -> Any:
    instance: Any = model.classes.instance
    return model.classes.request(instances=[instance(x=row) for row in rows])


def same_details(error: Any, expected: dict[str, Any]) -> None:
    """The gRPC error says what the JSON error says."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert error.code().value[0] == status.code == expected["code"]
    assert error.details() == status.message == expected["message"]
    detail = expected["details"][0]
    assert (info.reason, info.domain, dict(info.metadata)) == (detail["reason"], detail["domain"], detail["metadata"])


async def grpc_error(channel: grpc.aio.Channel, path: str, body: bytes, **options: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path)(body, **options)
    return caught.value
