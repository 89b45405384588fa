"""What teams write by hand without a gateway: FastAPI, orjson and tritonclient before an inference server.

The other side of the bench's large JSON case. Started by `envoys` as a process of its own, with uvicorn's fastest
loop and parser: `python -m loadtest.bench.gateway.fastapi_server HOST PORT PORT_OF_THE_SERVER MODEL=PATH ...`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
import tritonclient.grpc.aio as triton
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response


def app(server: str, models: Mapping[str, str]) -> FastAPI:
    """`POST path` with `{"instances": [{"x": [...]}]}` for each model; `models` are the server's names and paths."""
    state: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with triton.InferenceServerClient(server) as client:
            state["client"] = client
            yield

    service = FastAPI(lifespan=lifespan)

    def serve(model: str, path: str) -> None:
        @service.post(path)
        async def predict(request: Request) -> Response:
            try:
                rows = orjson.loads(await request.body())["instances"]
                x = np.asarray([row["x"] for row in rows], dtype=np.float32)
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise HTTPException(400, str(error)) from error
            tensor = triton.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            result = await state["client"].infer(model, [tensor], outputs=[triton.InferRequestedOutput("y")])
            answer = {"predictions": [{"y": row} for row in result.as_numpy("y")]}
            return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    for model, path in models.items():
        serve(model, path)
    return service


def main() -> None:
    host, port, server, *models = sys.argv[1:]
    uvicorn.run(
        app(f"{host}:{server}", dict(model.split("=", 1) for model in models)),
        host=host,
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
