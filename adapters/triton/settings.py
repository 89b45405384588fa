"""What can be set about how Triton serves versions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ModelBackend(StrEnum):
    """Which of Triton's backends runs an ONNX file."""

    PYTHON = "python"
    """A generated `model.py` that runs onnxruntime: all that the embedded Triton has."""

    ONNXRUNTIME = "onnxruntime"
    """The backend of a full Triton, as in NVIDIA's container."""


@dataclass(frozen=True, slots=True)
class TritonSettings:
    """Settings of every version on one Triton.

    `instances`: copies of the model that run at the same time; each is one thread (and one process with the Python
    backend). 1, because each costs the model's memory.

    `max_queue_delay_us`: how long a request waits for company in its batch, microseconds. 0: batches form only from
    requests that had to wait anyway, and nobody pays latency for them.

    `load_timeout_s`: longest wait for a load, seconds. 300: gigabytes from a cold disk.

    `call_timeout_s`: longest wait for everything else but inference, seconds.

    `probe_timeout_s`: longest wait for the test inference, seconds; a first run may compile and allocate.
    """

    backend: ModelBackend = ModelBackend.PYTHON
    instances: int = 1
    max_queue_delay_us: int = 0
    load_timeout_s: float = 300.0
    call_timeout_s: float = 10.0
    probe_timeout_s: float = 60.0
