"""The bench's model in MLServer: `mlserver start FOLDER` with model-settings.json naming this class."""

from __future__ import annotations

from answer import predict
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class BenchModel(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        y = predict(NumpyCodec.decode_input(payload.inputs[0]), self.name)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
