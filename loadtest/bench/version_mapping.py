"""Experiment: how should versions map to Triton so that changing one version never hurts another?

Each mapping on a Triton of its own, under continuous gRPC load on version 1, while version 2 is loaded, loaded again,
replaced, broken, repaired and unloaded:

- one Triton model with a folder per version, `version_policy: all`;
- the same with `version_policy: specific`, so that the configuration names the versions;
- one Triton model per version.

Then the same once more with a version 2 whose input has another shape than that of version 1. Counts failed requests,
answers of the wrong version, how often version 1 was loaded anew, and what callers of version 1 waited. The result is
docs/decisions/0001. Run it from a checkout: `python -m loadtest.bench.version_mapping`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import tritonclient.grpc.aio as triton
from google.protobuf import text_format
from tritonclient.utils import InferenceServerException

from adapters.server import Artefact
from adapters.signature import Datatype, Signature, TensorSpec
from adapters.triton.client import python_model
from adapters.triton.config import model_config
from adapters.triton.repository import Repository
from adapters.triton.settings import TritonSettings
from tests import models
from tests.triton_server import RunningTriton, triton_server

NAME: Final = "mapping"
WIDTH: Final = 4
"""Values per row of version 1."""


@dataclass(frozen=True)
class Content:
    """What a version serves: a file, and the values per row that its configuration declares."""

    file: bytes
    width: int = WIDTH


class Mapping(Protocol):
    """How versions become Triton models. `put` and `drop` change files, `publish` makes Triton take note."""

    @property
    def title(self) -> str: ...

    @property
    def target(self) -> tuple[str, str]:
        """Triton's name and version of version 1."""
        ...

    def put(self, version: int, content: Content) -> None: ...
    def drop(self, version: int) -> None: ...
    async def publish(self, client: Any, version: int) -> None: ...


@dataclass
class OneModel:
    """A: versions are folders of one Triton model."""

    repository: Path
    specific: bool
    target: tuple[str, str] = (NAME, "1")
    _present: dict[int, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"one model, versions in folders, policy {'specific' if self.specific else 'all'}"

    def put(self, version: int, content: Content) -> None:
        folder = self.repository / NAME / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_bytes(python_model())
        (folder / "model.onnx").write_bytes(content.file)
        self._present[version] = content.width
        self._configure()

    def drop(self, version: int) -> None:
        shutil.rmtree(self.repository / NAME / str(version))
        del self._present[version]
        self._configure()

    async def publish(self, client: Any, version: int) -> None:
        # Triton has no call for one version: loading the model brings it to what the folders say.
        await client.load_model(NAME)

    def _configure(self) -> None:
        # There is one configuration for all versions: the newest version's is the only one that can be right for it.
        config = _config(NAME, self._present[max(self._present)])
        config.ClearField("version_policy")
        if self.specific:
            config.version_policy.specific.versions.extend(sorted(self._present))
        else:
            config.version_policy.all.SetInParent()
        text = text_format.MessageToString(config)
        file = self.repository / NAME / "config.pbtxt"
        # Written only when it changes: Triton loads everything anew when the file is touched.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


@dataclass
class ModelPerVersion:
    """B: every version is a Triton model of its own."""

    repository: Path
    title: str = "one model per version"
    target: tuple[str, str] = (f"{NAME}.1", "")

    def put(self, version: int, content: Content) -> None:
        name = f"{NAME}.{version}"
        files: dict[str, bytes | Path] = {"1/model.py": python_model(), "1/model.onnx": content.file}
        config = text_format.MessageToString(_config(name, content.width))
        Repository(self.repository).write(name, config=config, files=files)

    def drop(self, version: int) -> None:
        Repository(self.repository).remove(f"{NAME}.{version}")

    async def publish(self, client: Any, version: int) -> None:
        name = f"{NAME}.{version}"
        if (self.repository / name).exists():
            await client.load_model(name)
        else:
            await client.unload_model(name)


@dataclass
class Load:
    """Callers of version 1, each asking again as soon as it has its answer."""

    server: RunningTriton
    target: tuple[str, str]
    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: int = 0
    _stopped: bool = False

    @property
    def finished(self) -> int:
        return len(self.latencies_s) + len(self.failures)

    async def call(self) -> None:
        name, version = self.target
        sent = np.arange(4, dtype=np.float32).reshape(1, 4)
        tensor = triton.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(sent)
        async with triton.InferenceServerClient(str(self.server.grpc)) as client:
            while not self._stopped:
                started = time.perf_counter()
                try:
                    answer = await client.infer(name, [tensor], model_version=version, client_timeout=30.0)
                except InferenceServerException as error:
                    self.failures.append(str(error))
                    continue
                self.latencies_s.append(time.perf_counter() - started)
                self.wrong += not np.array_equal(answer.as_numpy("y"), sent + 1)

    async def more(self, requests: int) -> None:
        """Wait until that many more requests are finished."""
        goal = self.finished + requests
        while self.finished < goal:  # noqa: ASYNC110  the callers run flat out; looking now and then disturbs them least
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._stopped = True


@dataclass(frozen=True)
class Row:
    title: str
    requests: int
    failures: list[str]
    wrong: int
    reloads: int
    refused: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        return (
            f"| {self.title} | {self.requests:,} | {len(self.failures)} | {self.wrong} | {self.reloads} | "
            f"{self.refused} | {self.p50_ms:.2f} | {self.p99_ms:.2f} | {self.max_ms:.1f} |"
        )


HEAD: Final = (
    "| mapping | requests to version 1 | failed | answered by another version | version 1 loaded anew | "
    "broken loads refused | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|---|---|---|---|"
)


async def measure(
    server: RunningTriton, mapping: Mapping, *, rounds: int, callers: int, between: int, width: int | None
) -> Row:
    """Load version 1, call it all the time, and change version 2 `rounds` times in every way.

    `width`: values per row of version 2; None leaves version 2 out, for comparison.
    """
    async with triton.InferenceServerClient(str(server.grpc)) as client:
        mapping.put(1, Content(models.add(1)))
        await mapping.publish(client, 1)
        load = Load(server, mapping.target)
        tasks = [asyncio.create_task(load.call()) for _ in range(callers)]
        await load.more(between)
        load.latencies_s.clear()  # The first answers of a fresh server are no measure.
        seen, reloads, refused = 0, 0, 0
        steps = [] if width is None else _changes(mapping, width)
        for _ in range(rounds):
            for step in steps:
                await asyncio.to_thread(step)
                refused += await _refused(mapping.publish(client, 2))
                await load.more(between)
                served = await _served(client, mapping.target)
                reloads += served < seen
                seen = served
            if not steps:
                await load.more(6 * between)
        load.stop()
        await asyncio.gather(*tasks)
    ms = np.array(load.latencies_s) * 1000
    return Row(
        f"{mapping.title}; {_VERSION_2[width]}",
        load.finished,
        load.failures,
        load.wrong,
        reloads,
        refused,
        float(np.percentile(ms, 50)),
        float(np.percentile(ms, 99)),
        float(ms.max()),
    )


_VERSION_2: Final = {
    WIDTH: "version 2 of the same signature",
    WIDTH + 2: "version 2 of another input shape",
    None: "nothing changed, for comparison",
}


def _changes(mapping: Mapping, width: int) -> list[Callable[[], object]]:
    """Everything that happens to version 2: each is followed by `publish`."""

    def put(file: bytes) -> Callable[[], object]:
        return lambda: mapping.put(2, Content(file, width))

    two, other = (models.add(amount, shape=(width,)) for amount in (2, 3))
    return [put(two), lambda: None, put(other), put(b"not a model"), put(two), lambda: mapping.drop(2)]


async def _refused(change: Awaitable[None]) -> bool:
    try:
        await change
    except InferenceServerException:
        return True
    return False


async def _served(client: Any, target: tuple[str, str]) -> int:
    """Requests that the loaded copy of version 1 has answered: falls back when it is loaded anew, 0 when gone."""
    try:
        statistics = await client.get_inference_statistics(target[0], "1")
    except InferenceServerException:
        return 0
    return int(statistics.model_stats[0].inference_count)


def _config(name: str, width: int) -> Any:
    signature = Signature(
        inputs=(TensorSpec("x", Datatype.FP32, (width,)),),
        outputs=(TensorSpec("y", Datatype.FP32, (width,)),),
        max_batch_size=64,
    )
    artefact = Artefact(model=NAME, version=1, path=Path(), digest="", signature=signature)
    return model_config(artefact, name=name, settings=TritonSettings())


@contextmanager
def _fresh() -> Iterator[RunningTriton]:
    with tempfile.TemporaryDirectory(prefix="version-mapping-") as folder, triton_server(Path(folder)) as server:
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="times version 2 goes through all changes")
    parser.add_argument("--callers", type=int, default=4, help="callers of version 1 at the same time")
    parser.add_argument("--between", type=int, default=400, help="requests to wait for after each change")
    options = parser.parse_args()
    folders, named = partial(OneModel, specific=False), partial(OneModel, specific=True)
    plan: list[tuple[Callable[[Path], Mapping], int | None]] = [
        *((make, WIDTH) for make in (folders, named, ModelPerVersion)),
        *((make, WIDTH + 2) for make in (folders, named, ModelPerVersion)),
        (ModelPerVersion, None),
    ]
    rows = []
    for make, width in plan:
        with _fresh() as server:
            running = measure(
                server,
                make(server.repository),
                rounds=options.rounds,
                callers=options.callers,
                between=options.between,
                width=width,
            )
            rows.append(asyncio.run(running))
    print(HEAD)
    for row in rows:
        print(row)
    for row in rows:
        for reason in sorted(set(row.failures)):
            print(f"{row.title}: {row.failures.count(reason):,} x {reason}")


if __name__ == "__main__":
    main()
