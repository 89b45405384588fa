"""The real Triton serves ONNX files with the answers of onnxruntime itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from adapters.sample import NUMPY, Array
from adapters.server import Address, Artefact, LoadFailed, NotReady, Served, ServerUnavailable
from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from adapters.triton.client import Triton
from adapters.triton.settings import ModelBackend, TritonSettings
from tests import models
from tests.adapters.asking import ask_onnxruntime, ask_served, assert_same, client_of
from tests.adapters.conftest import artefact
from tests.triton_server import RunningTriton, free_ports

pytestmark = pytest.mark.e2e

Store = Callable[[bytes], Path]

WORDS = ["", "a", "Grüße", "水門", "with\0zero", "x" * 300]


@pytest.fixture(scope="session")
async def client(server: RunningTriton) -> AsyncIterator[Any]:
    async with client_of(server) as opened:
        yield opened


@asynccontextmanager
async def opened(triton: Triton) -> AsyncIterator[Triton]:
    try:
        yield triton
    finally:
        await triton.close()


def another(
    server: RunningTriton, settings: TritonSettings | None = None, *, repository: Path | None = None
) -> AbstractAsyncContextManager[Triton]:
    """One more client of the server: with its folder, or as a remote one."""
    address = {"grpc": server.grpc, "http": server.http}
    return opened(Triton(name="another", repository=repository, settings=settings, **address))


def made_up(spec: TensorSpec, *, rows: int | None, seed: int, dynamic: int = 5) -> Array:
    """Values over the whole range of the datatype."""
    rng = np.random.default_rng(seed)
    shape = tuple(dynamic if d == DYNAMIC else d for d in spec.shape)
    shape = shape if rows is None else (rows, *shape)
    if spec.datatype is Datatype.BYTES:
        return rng.choice(np.array(WORDS, np.object_), size=shape)
    dtype: Any = np.dtype(NUMPY[spec.datatype])
    if dtype.kind == "b":
        return rng.integers(0, 2, size=shape).astype(dtype)
    if dtype.kind == "f" or spec.datatype is Datatype.BF16:
        return rng.normal(scale=1e3, size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)


CASES: dict[str, Callable[[], bytes]] = {
    **{
        f"identity-{datatype.value.lower()}-{kind}": partial(models.identity, datatype, (2, 3), batching=batching)
        for datatype in NUMPY
        for kind, batching in (("batched", True), ("unbatched", False))
    },
    "optional-batched": models.optional_bias,
    "optional-unbatched": partial(models.optional_bias, batching=False),
    "optional-type": models.optional_type,
    "many-inputs-batched": models.many_inputs,
    "many-inputs-unbatched": partial(models.many_inputs, batching=False),
    "scalars-batched": models.scalars,
    "scalars-unbatched": partial(models.scalars, batching=False),
    "text-batched": models.string_exclaim,
    "text-unbatched": partial(models.string_exclaim, batching=False),
    "dynamic-batched": models.sums,
    "dynamic-unbatched": partial(models.sums, batching=False),
    "classifier": models.classifier,
    "zipmap": models.zipmap_classifier,
    "add-fp64": partial(models.add_one, Datatype.FP64),
    "add-int32": partial(models.add_one, Datatype.INT32),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_version_answers_as_onnxruntime_does(triton: Triton, client: Any, store: Store, case: str) -> None:
    version = await artefact(store(CASES[case]()), case)
    await triton.load(version)
    assert await triton.probe(version) > 0
    for rows in (1, 3, 64) if version.signature.batching else (None,):
        feeds = {s.name: made_up(s, rows=rows, seed=rows or 0) for s in version.signature.inputs}
        assert_same(await ask_served(client, version, feeds), ask_onnxruntime(version, feeds))


@pytest.mark.parametrize("case", ["many-inputs-batched", "many-inputs-unbatched", "scalars-batched", "classifier"])
async def test_the_live_server_tells_the_signature_of_the_file(triton: Triton, store: Store, case: str) -> None:
    version = await artefact(store(CASES[case]()), f"told-{case}")
    await triton.load(version)
    assert await triton.describe(Served(triton.served_name(version.model, 1), "1")) == version.signature


async def test_a_scalar_per_row_travels_as_rows_by_one(
    triton: Triton, client: Any, server: RunningTriton, store: Store
) -> None:
    version = await artefact(store(models.classifier()), "wire")
    await triton.load(version)
    metadata = await client.get_model_metadata("wire.1")
    assert {t.name: list(t.shape) for t in metadata.outputs} == {"label": [-1, 1], "probabilities": [-1, 3]}


async def test_versions_live_side_by_side_and_unloading_one_leaves_the_other(
    triton: Triton, client: Any, store: Store
) -> None:
    versions = [await artefact(store(models.add(n)), "side", n) for n in (1, 2)]
    for version in versions:
        await triton.load(version)
    feeds = {"x": np.ones((1, 4), np.float32)}
    answers = [float((await ask_served(client, version, feeds))["y"][0, 0]) for version in versions]
    assert answers == [2.0, 3.0]
    await triton.unload("side", 1)
    assert float((await ask_served(client, versions[1], feeds))["y"][0, 0]) == 3.0
    with pytest.raises(NotReady, match=r"side\.1: the test inference failed"):
        await triton.probe(versions[0])
    with pytest.raises(NotReady, match=r"side\.1"):
        await triton.describe(Served("side.1", "1"))


async def test_loading_again_changes_nothing_and_loads_nothing(
    triton: Triton, client: Any, server: RunningTriton, store: Store
) -> None:
    version = await artefact(store(models.add(1)), "again")
    await triton.load(version)
    entry = (server.repository / "again.1").stat()
    await triton.probe(version)
    await asyncio.gather(*(triton.load(version) for _ in range(5)))
    assert (server.repository / "again.1").stat().st_ino == entry.st_ino
    statistics = await client.get_inference_statistics("again.1")
    assert statistics.model_stats[0].inference_count == 1, "a fresh load would have started counting anew"


async def test_many_versions_load_at_the_same_time(triton: Triton, store: Store) -> None:
    versions = [await artefact(store(models.add(n)), "crowd", n) for n in range(1, 5)]
    await asyncio.gather(*(triton.load(version) for version in versions))
    for version in versions:
        assert await triton.probe(version) > 0
    await asyncio.gather(*(triton.unload("crowd", version.version) for version in versions))


async def test_unloading_what_was_never_loaded_is_no_error(triton: Triton) -> None:
    await triton.unload("never-seen", 7)


async def test_requests_in_flight_finish_when_their_version_is_unloaded(
    triton: Triton, client: Any, server: RunningTriton, store: Store
) -> None:
    # About a second a run: looking at the server's metrics takes long enough to miss a short one.
    version = await artefact(store(models.slow_on_large_input(rounds=40_000)), "leaving")
    await triton.load(version)
    # Each request is a whole batch: while one runs the others wait, and the queue shows that the server has them.
    slow = {"x": np.full((version.signature.max_batch_size, 4), models.LIMIT + 1, np.float32)}
    asked = [asyncio.ensure_future(ask_served(client, version, slow)) for _ in range(4)]
    await until(lambda: pending(client, server, "leaving.1"))
    await triton.unload("leaving", 1)
    for answer in await asyncio.gather(*asked):
        assert_same(answer, {"y": slow["x"]})


async def test_a_broken_file_does_not_load_and_leaves_nothing_behind(
    triton: Triton, server: RunningTriton, store: Store
) -> None:
    path = store(b"not a model at all")
    signature = Signature((TensorSpec("x", Datatype.FP32, (4,)),), (TensorSpec("y", Datatype.FP32, (4,)),), 64)
    version = Artefact("broken", 1, path, "sha256:0", signature)
    with pytest.raises(
        LoadFailed, match=r"broken\.1: Triton did not load the model: .*Protobuf parsing failed"
    ) as told:
        await triton.load(version)
    assert "\n" not in str(told.value)
    assert "At:" not in str(told.value), "no stack of the server's own"
    assert isinstance(told.value.__cause__, InferenceServerException)
    assert not (server.repository / "broken.1").exists()
    assert await triton.live()


async def test_a_signature_that_is_not_the_files_does_not_pass_the_probe(triton: Triton, store: Store) -> None:
    honest = await artefact(store(models.add_one()), "liar")
    inputs = (TensorSpec("x", Datatype.FP32, (7,)),)
    liar = Artefact("liar", 1, honest.path, "sha256:1", Signature(inputs, honest.signature.outputs, 64))
    await triton.load(liar)
    with pytest.raises(NotReady, match=r"liar\.1: the test inference failed: the model failed on this input"):
        await triton.probe(liar)


async def test_the_guilty_request_of_a_batch_fails_alone(server: RunningTriton, client: Any, store: Store) -> None:
    async with another(server, TritonSettings(max_queue_delay_us=300_000), repository=server.repository) as triton:
        version = await artefact(store(models.fails_on_large_input()), "guilty")
        await triton.load(version)
        values = [1, 2, models.LIMIT + 1, 4, 5, 6]
        asked = (ask_served(client, version, {"x": np.array([[v]], np.int64)}) for v in values)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert len(values) in await run_sizes(client, "guilty.1"), "the requests must have met in one batch"
    for value, answer in zip(values, answers, strict=True):
        if value > models.LIMIT:
            assert isinstance(answer, InferenceServerException)
            assert answer.status() == "StatusCode.INTERNAL"
            assert "indices element out of data bounds" in answer.message()
        else:
            assert isinstance(answer, dict)
            assert answer["y"].tolist() == [[value]]


async def test_requests_that_wait_together_are_one_run(server: RunningTriton, client: Any, store: Store) -> None:
    async with another(server, TritonSettings(max_queue_delay_us=300_000), repository=server.repository) as triton:
        version = await artefact(store(models.many_inputs()), "together")
        await triton.load(version)
        rows = [1, 3, 2]
        feeds = [{s.name: made_up(s, rows=n, seed=n) for s in version.signature.inputs} for n in rows]
        answers = await asyncio.gather(*(ask_served(client, version, each) for each in feeds))
        assert await run_sizes(client, "together.1") == [sum(rows)]
    for each, answer in zip(feeds, answers, strict=True):
        assert_same(answer, ask_onnxruntime(version, each))


async def test_text_that_is_not_utf8_is_the_callers_fault(triton: Triton, client: Any, store: Store) -> None:
    version = await artefact(store(models.string_identity()), "bytes")
    await triton.load(version)
    with pytest.raises(InferenceServerException, match="input 'x': expected text in UTF-8") as told:
        await ask_served(client, version, {"x": np.array([[b"\xff\xfe", b"a"]], np.object_)})
    assert told.value.status() == "StatusCode.INVALID_ARGUMENT"


async def test_a_server_without_a_shared_folder_gets_the_files_by_api(
    server: RunningTriton, client: Any, store: Store
) -> None:
    async with another(server, TritonSettings(backend=ModelBackend.PYTHON)) as remote:
        version = await artefact(store(models.classifier()), "far")
        await remote.load(version)
        assert await remote.probe(version) > 0
        assert await remote.describe(Served("far.1", "1")) == version.signature
        feeds = {"X": np.ones((2, 4), np.float32)}
        assert_same(await ask_served(client, version, feeds), ask_onnxruntime(version, feeds))
        await remote.unload("far", 1)
        with pytest.raises(NotReady):
            await remote.probe(version)
    assert not (server.repository / "far.1").exists()


async def test_a_backend_that_the_server_lacks_is_named(server: RunningTriton, store: Store) -> None:
    async with another(server) as remote:
        version = await artefact(store(models.add_one()), "full")
        with pytest.raises(LoadFailed, match="unable to find backend library for backend 'onnxruntime'"):
            await remote.load(version)


async def test_a_server_that_is_not_there_is_unavailable_in_every_call(store: Store) -> None:
    nowhere = Address("127.0.0.1", free_ports(1)[0])
    version = await artefact(store(models.add_one()), "lost")
    async with opened(Triton(name="gone", grpc=nowhere, http=nowhere)) as triton:
        assert not await triton.live()
        for call in (
            triton.load(version),
            triton.probe(version),
            triton.describe(Served("lost.1", "1")),
            triton.unload("lost", 1),
        ):
            with pytest.raises(ServerUnavailable, match=f"Triton 'gone' at {nowhere} does not answer") as told:
                await call
            assert isinstance(told.value.__cause__, InferenceServerException)


async def run_sizes(client: Any, served: str) -> list[int]:
    """The sizes of the batches that were run, by the server's statistics, which come a moment after the answers."""
    sizes: list[int] = []

    async def known() -> bool:
        statistics = await client.get_inference_statistics(served)
        sizes[:] = [batch.batch_size for batch in statistics.model_stats[0].batch_stats]
        return bool(sizes)

    await until(known)
    return sizes


async def pending(client: Any, server: RunningTriton, served: str) -> bool:
    """Whether a request waits for that model, by the server's own metric."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://{server.metrics}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("nv_inference_pending_request_count")]
    return any(f'model="{served}"' in line and float(line.split()[-1]) >= 1 for line in lines)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0)
