"""The bench's models in BentoML: `bentoml serve bentoml_service:BenchService --port PORT`."""

from __future__ import annotations

from typing import Annotated

import bentoml
import numpy as np
from answer import predict
from bentoml.validators import DType


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000}, logging={"access": {"enabled": False}})
class BenchService:
    @bentoml.api
    def small(self, x: Annotated[np.ndarray, DType("float32")]) -> dict[str, list[float]]:
        return {"y": predict(x, "small")[0].tolist()}

    @bentoml.api
    def large(self, x: Annotated[np.ndarray, DType("float32")]) -> dict[str, list[float]]:
        return {"y": predict(x, "large")[0].tolist()}
