"""The bench's models in KServe's Python server: `python kserve_model.py HTTP_PORT GRPC_PORT`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from answer import predict
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class BenchModel(Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if not isinstance(payload, InferRequest):
            x = np.asarray([row["x"] for row in payload["instances"]], dtype=np.float32)
            return {"predictions": [{"y": row} for row in predict(x, self.name).tolist()]}
        y = predict(payload.inputs[0].as_numpy(), self.name)
        output = InferOutput(name="y", shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(y, binary_data=True)
        return InferResponse(
            response_id=payload.id or "1",
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1, access_log_format=None).start(
        [BenchModel("small"), BenchModel("large")]
    )
