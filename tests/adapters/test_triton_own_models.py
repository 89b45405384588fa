"""What a Triton has in its own repository: listed, loaded in place, described and proven under the server's names."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.server import Artefact, Listed, LoadFailed, NotReady, Served
from adapters.signature import Datatype, Signature, TensorSpec
from adapters.triton.client import Triton
from tests.own_models import put_multiplier
from tests.triton_server import RunningTriton


def artefact(served: Served, signature: Signature) -> Artefact:
    return Artefact("twice", 7, Path("no file"), "adopted:1", signature, served)


async def test_a_model_of_the_servers_own_is_listed_loaded_described_and_proven(
    server: RunningTriton, triton: Triton
) -> None:
    put_multiplier(server.repository, "Own.Twice", {1: 2, 3: 6})
    assert Listed(Served("Own.Twice", ""), ready=False) in await triton.index()
    with pytest.raises(NotReady):
        await triton.describe(Served("Own.Twice", "3"))
    await triton.load_own("Own.Twice")
    listed = [entry for entry in await triton.index() if entry.served.name == "Own.Twice"]
    assert sorted(entry.served.version for entry in listed if entry.ready) == ["1", "3"]
    signature = await triton.describe(Served("Own.Twice", "3"))
    assert signature == Signature(
        inputs=(TensorSpec("X", Datatype.FP32, (3,)),),
        outputs=(TensorSpec("Y", Datatype.FP32, (3,)),),
        max_batch_size=8,
    )
    third = artefact(Served("Own.Twice", "3"), signature)
    await triton.load(third)
    assert await triton.probe(third) > 0
    with pytest.raises(NotReady):
        await triton.probe(artefact(Served("Own.Twice", "2"), signature))
    assert (server.repository / "Own.Twice" / "config.pbtxt").exists(), "its files are not ours"


async def test_what_the_server_cannot_load_says_why(server: RunningTriton, triton: Triton) -> None:
    put_multiplier(server.repository, "broken", {1: 1})
    (server.repository / "broken" / "1" / "model.py").write_text("raise RuntimeError('no licence')")
    with pytest.raises(LoadFailed, match="no licence"):
        await triton.load_own("broken")
    with pytest.raises(LoadFailed):
        await triton.load_own("nothing")
