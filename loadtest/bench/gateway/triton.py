"""A Triton of its own for a bench, with models of its Python backend: the embedded one has no other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.triton.embedded import EmbeddedTriton
from loadtest.bench.gateway.fronts import free_ports, loopback
from loadtest.demo.children import Child


@dataclass(frozen=True, slots=True)
class RunningTriton:
    child: Child
    grpc: int
    http: int


def write_model(folder: Path, code: str, dims: Sequence[int]) -> Path:
    """A batching model x -> y, floats of `dims` to four floats; the folder of its version."""
    version = folder / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code, encoding="utf-8")
    (folder / "config.pbtxt").write_text(
        f'backend: "python"\nmax_batch_size: 8\ninput {{ name: "x" data_type: TYPE_FP32 dims: {list(dims)} }}\n'
        'output { name: "y" data_type: TYPE_FP32 dims: 4 }\n',
        encoding="utf-8",
    )
    return version


@contextmanager
def running_triton(
    folder: Path, *, load_at_start: Sequence[str] = (), prefix: Sequence[str] = ()
) -> Iterator[RunningTriton]:
    """Started, perhaps not ready yet, with the models in `folder`/repository; its command comes after `prefix`."""
    embedded = EmbeddedTriton.find()
    grpc, http, metrics = free_ports(3)
    command = embedded.command(
        repository=folder / "repository",
        backends=embedded.prepare(folder / "backends"),
        grpc=loopback(grpc),
        http=loopback(http),
        metrics=loopback(metrics),
        load_at_start=load_at_start,
    )
    env = embedded.environment(os.environ)
    with Child("triton", [*prefix, *command], log=folder / "triton.log", env=env) as child:
        yield RunningTriton(child, grpc, http)
