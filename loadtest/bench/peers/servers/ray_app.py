"""The bench's models in Ray Serve: `python ray_app.py PORT FOLDER`."""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
import ray
from answer import predict
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.1})
class BenchModel:
    async def __call__(self, request: Request) -> dict[str, Any]:
        x = np.asarray((await request.json())["x"], dtype=np.float32)
        return {"y": predict(x, "small" if x.size == 4 else "large")[0].tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", _temp_dir=sys.argv[2])
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(BenchModel.bind())
    signal.pause()
