"""Models as somebody else puts them into a Triton repository: written by hand, not by Penstock.

Used by the tests of adoption. Python backend, because the embedded Triton has no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CONFIG: Final = """
name: "{name}"
backend: "python"
max_batch_size: 8
version_policy: {{ all: {{ }} }}
input [ {{ name: "X", data_type: TYPE_FP32, dims: [ 3 ] }} ]
output [ {{ name: "Y", data_type: TYPE_FP32, dims: [ 3 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
"""

_MODEL: Final = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        x = (pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", each * {factor})]) for each in x]
"""


def put_multiplier(repository: Path, name: str, factors: dict[int, int]) -> None:
    """A model whose version answers Y = X * factor, one version per entry of `factors`. Nobody loads it."""
    staging = repository.parent / f"{name}.staging"
    for version, factor in factors.items():
        folder = staging / str(version)
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(_MODEL.format(factor=f"__import__('numpy').float32({factor})"))
    (staging / "config.pbtxt").write_text(_CONFIG.format(name=name))
    staging.rename(repository / name)
