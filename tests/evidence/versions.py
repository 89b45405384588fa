"""An inference server for tests that speaks the real protocol: each served name is a Python function of tensors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from adapters.server import Address
from adapters.triton.inference import MODEL_INFER, InferRequest, Target, Tensor

Version = Callable[[dict[str, Any]], dict[str, Any]]
"""Input arrays by name -> output arrays by name. Raises to fail."""

_DATATYPES = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}


@dataclass
class Versions:
    """`asked` are the served names in the order in which they were asked."""

    address: Address
    models: dict[str, Version] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def infer(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        request = InferRequest.parse(data)
        name = request.target.name
        self.asked.append(name)
        if name not in self.models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {name}")
        try:
            outputs = self.models[name]({tensor.name: tensor.values for tensor in request.inputs()})
        except Exception as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
            raise
        answer = service_pb2.ModelInferResponse(model_name=name)
        for output, values in outputs.items():
            array = np.asarray(values)
            tensor = Tensor(output, _DATATYPES[str(array.dtype)], array)
            answer.outputs.add(name=output, datatype=tensor.datatype, shape=tensor.shape)
            answer.raw_output_contents.append(tensor.raw())
        return bytes(answer.SerializeToString())


@asynccontextmanager
async def serving_versions(models: dict[str, Version]) -> AsyncIterator[Versions]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    versions = Versions(Address("127.0.0.1", port), models)
    service, method = MODEL_INFER.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(versions.infer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    await server.start()
    try:
        yield versions
    finally:
        await server.stop(grace=None)


def question(*rows: float, name: str = "digits.1") -> bytes:
    """A request of one FP32 column `x`."""
    values = np.array(rows, np.float32).reshape(-1, 1)
    request = InferRequest.of([Tensor("x", "FP32", values)])
    return request.to(Target(name, "1"))


def threshold(limit: float) -> Version:
    """Label 1 above `limit`, and the distance to it."""

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs["x"][:, 0]
        return {"label": (x > limit).astype(np.int64), "score": (x - limit).astype(np.float32)}

    return answer
