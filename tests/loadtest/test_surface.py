"""The load test finds a model's typed API by reflection alone, and its requests fit the contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.model import Contract
from gateway.server.reflection import add_reflection
from loadtest.examples import Example
from loadtest.surface import TypedApi, UnknownModel, WrongExample, find_model

PIXELS = TensorSpec("pixels", Datatype.FP32, (4,))
LABEL = TensorSpec("label", Datatype.INT64, ())
BATCHING = derive("tiny-digits", Signature((PIXELS,), (LABEL,), max_batch_size=8))
SINGLE = derive("single", Signature((PIXELS,), (LABEL,)))
NEXT_MAJOR = derive("tiny-digits", Signature((PIXELS,), (LABEL,), max_batch_size=8), major=2)


@pytest.fixture
def published() -> list[Contract]:
    """The contracts that the reflection server tells of; a test may add to them."""
    return [BATCHING, SINGLE]


@pytest.fixture
async def target(published: list[Contract]) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_reflection(server, contracts=lambda: published)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def found(target: str, model: str) -> TypedApi:
    def ask() -> TypedApi:
        with grpc.insecure_channel(target) as channel:
            return find_model(channel, model)

    return await asyncio.to_thread(ask)


async def test_a_batching_model_takes_instances(target: str) -> None:
    api = await found(target, "tiny-digits")
    assert api.grpc_path == "/penstock.models.tiny_digits.v1.TinyDigits/Predict"
    assert api.http_path == "/v1/models/tiny-digits:predict"
    example = Example({"pixels": [1, 2, 3, 4]}, label=7)
    assert json.loads(api.json_body(example)) == {"instances": [{"pixels": [1, 2, 3, 4]}]}
    request = GetMessageClass(api.request).FromString(api.grpc_body(example))
    assert json_format.MessageToDict(request) == {"instances": [{"pixels": [1.0, 2.0, 3.0, 4.0]}]}


async def test_a_model_that_does_not_batch_takes_the_fields_themselves(target: str) -> None:
    api = await found(target, "single")
    example = Example({"pixels": [1, 2, 3, 4]}, label=None)
    assert json.loads(api.json_body(example)) == {"pixels": [1, 2, 3, 4]}
    request = GetMessageClass(api.request).FromString(api.grpc_body(example))
    assert json_format.MessageToDict(request) == {"pixels": [1.0, 2.0, 3.0, 4.0]}


async def test_the_newest_major_is_used(target: str, published: list[Contract]) -> None:
    published.append(NEXT_MAJOR)
    api = await found(target, "tiny-digits")
    assert (api.grpc_path, api.http_path) == (NEXT_MAJOR.predict_grpc_path, "/v2/models/tiny-digits:predict")


async def test_an_unknown_model_is_told_which_there_are(target: str) -> None:
    with pytest.raises(UnknownModel, match=r"'digits'.*which are: single, tiny_digits"):
        await found(target, "digits")


async def test_an_example_with_a_wrong_field_is_refused_by_name(target: str) -> None:
    api = await found(target, "tiny-digits")
    with pytest.raises(WrongExample, match="pixls"):
        api.grpc_body(Example({"pixls": [1, 2, 3, 4]}, label=None))


async def test_an_answer_without_a_prediction_is_noticed(target: str) -> None:
    api = await found(target, "tiny-digits")
    response: Any = GetMessageClass(api.response)()
    assert not api.answered(response.SerializeToString())
    response.predictions.add(label=3)
    assert api.answered(response.SerializeToString())
