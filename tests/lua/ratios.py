"""How fast nested arrays are read, relative to flat ones: `python -m tests.lua.ratios`.

Channels-last images are arrays of 3 within arrays: a reader that does something per array is several times slower
there. All bodies go through one LuaJIT, one after the other, so that what one leaves behind shows in the next. The
figures are ratios within one process, best of several; nothing is asserted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from adapters.signature import DYNAMIC, Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Scripts

SHAPE = (224, 224, 3)
TURNS = 15


def best_ms(work: Callable[[], Any]) -> float:
    """Shortest of several turns, after some that let LuaJIT compile."""
    times = []
    for _ in range(TURNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1000


def bodies(values: Any) -> dict[str, bytes]:
    compact = (",", ":")
    return {
        "flat": json.dumps({"x": values.reshape(-1).tolist()}, separators=compact).encode(),
        "[3,224,224]": json.dumps({"x": values.transpose(2, 0, 1).tolist()}, separators=compact).encode(),
        "[224,224,3]": json.dumps({"x": values.tolist()}, separators=compact).encode(),
        "[224,224,3], spaces": json.dumps({"x": values.tolist()}).encode(),
        "[-1,-1,3]": json.dumps({"x": values.tolist()}, separators=compact).encode(),
    }


def shape_of(name: str) -> tuple[int, ...]:
    if name.startswith("[-1"):
        return (DYNAMIC, DYNAMIC, 3)
    return (3, 224, 224) if name.startswith("[3") else SHAPE


def report() -> str:
    rng = np.random.default_rng(1)
    lines = ["| datatype | body | ms | against flat |", "|---|---|---|---|"]
    for datatype, values in (
        (Datatype.FP32, rng.random(SHAPE).round(6)),
        (Datatype.UINT8, rng.integers(0, 256, SHAPE)),
    ):
        scripts = Scripts()
        flat = None
        for name, body in bodies(values).items():
            spec = TensorSpec("x", datatype, shape_of(name))
            plan = scripts.plan(vectors.model([spec], [spec]).context())
            took = best_ms(partial(scripts.decode_json, plan, body))
            flat = flat or took
            lines.append(f"| {datatype} | {name} | {took:.2f} | {took / flat:.2f}x |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(report())
