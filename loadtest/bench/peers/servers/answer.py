"""The model of the bench inside a peer that runs models itself: any x of the right size gives the same four floats."""

from __future__ import annotations

import numpy as np

Y = np.array([[0.25, 0.5, 0.125, 1.5]], dtype=np.float32)
SIZES = {"small": 4, "large": 150_528}


def predict(x: np.ndarray, model: str) -> np.ndarray:
    """`x` as float32 of the model's size. Raises ValueError, as a real model would."""
    if x.dtype != np.float32 or x.size != SIZES[model]:
        raise ValueError(f"{model}: expected {SIZES[model]} float32 values, received {x.size} of {x.dtype}")
    return Y
