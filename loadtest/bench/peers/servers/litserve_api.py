"""The bench's models in LitServe: `python litserve_api.py PORT`."""

import sys
from typing import Any

import litserve as ls
import numpy as np
from answer import predict


class BenchApi(ls.LitAPI):
    def setup(self, device: str) -> None: ...

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["x"], dtype=np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return predict(x, "small" if x.size == 4 else "large")

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"y": output[0].tolist()}


if __name__ == "__main__":
    server = ls.LitServer(BenchApi(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
