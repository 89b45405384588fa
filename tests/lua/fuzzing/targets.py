"""What is fuzzed, and what must hold of every body.

A target makes mutated bodies and checks one: it must be accepted or refused as its oracle says, become the same
tensors, and every refusal must be an error of the one shape that blames the right side. A check returns whether the
body was accepted and raises `Wrong` otherwise; any other exception is a fault of the scripts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from adapters.signature import Datatype
from tests.lua import vectors
from tests.lua.fuzzing import bodies, oracles
from tests.lua.fuzzing.oracles import NotAllowed, Sent
from tests.lua.scripts import Refused, Scripts
from tests.lua.vectors import Model


class Wrong(AssertionError):
    """The scripts and the oracle do not agree."""


@dataclass(frozen=True)
class Target:
    """`body` makes a mutated body; `check` says whether it was accepted, or raises."""

    name: str
    body: Callable[[Model, random.Random], bytes]
    check: Callable[[Scripts, Model, Any, bytes], bool]


def check_json_request(scripts: Scripts, made: Model, plan: Any, body: bytes) -> bool:
    try:
        expected: list[Sent] | None = oracles.of_json(made, body)
    except (ValueError, NotAllowed, RecursionError):
        expected = None
    # -0 is an integer to Python, which has no negative zero; IEEE 754 has one and JSON text can say it.
    return _same_request(_request(scripts.decode_json, plan, body), expected, signs=b"-0" not in body)


def check_typed_request(scripts: Scripts, made: Model, plan: Any, body: bytes) -> bool:
    try:
        expected: list[Sent] | None = oracles.of_typed(made, made.classes.request.FromString(body))
    except (DecodeError, NotAllowed):
        expected = None
    return _same_request(_request(scripts.decode_typed, plan, vectors.framed(body)), expected)


def _request(decode: Callable[[Any, bytes], bytes], plan: Any, body: bytes) -> list[Sent] | None:
    try:
        message = vectors.infer_request(decode(plan, body))
    except Refused as refused:
        labelled(json.loads(refused.json), codes=(3,))
        return None
    datatypes = {i.name: i.datatype for i in message.inputs}
    return [
        Sent(i.name, tuple(i.shape), vectors.one_nan(Datatype(datatypes[i.name]), content))
        for i, content in zip(message.inputs, message.raw_input_contents, strict=True)
    ]


def labelled(error: Any, codes: Sequence[int]) -> None:
    detail = error["details"][0]
    if error["code"] not in codes or not error["message"] or not detail["reason"].isupper():
        raise Wrong(f"an error that is not labelled as it should be: {error}")


def _same_request(found: list[Sent] | None, expected: list[Sent] | None, *, signs: bool = True) -> bool:
    if (found is None) != (expected is None):
        raise Wrong(f"{'refused' if found is None else 'accepted'}; the oracle says {expected}")
    if found is None or expected is None:
        return False
    if signs and found != expected:
        raise Wrong(f"read as {found}; the oracle says {expected}")
    if [(s.name, s.shape, len(s.content)) for s in found] != [(s.name, s.shape, len(s.content)) for s in expected]:
        raise Wrong(f"read as {found}; the oracle says {expected}")
    return True


def check_answer(scripts: Scripts, made: Model, plan: Any, body: bytes) -> bool:
    try:
        arrays: list[Any] | None = oracles.of_answer(made, body)
    except (DecodeError, NotAllowed):
        arrays = None
    as_json = _answer(scripts.encode_json, plan, body)
    if (as_json is None) != (arrays is None):
        raise Wrong(f"{'refused' if as_json is None else 'accepted'}; the oracle says {arrays}")
    as_typed = _answer(scripts.encode_typed, plan, body)
    if as_json is None or arrays is None:
        if as_typed is not None:
            raise Wrong("refused for JSON and accepted for typed gRPC")
        return False
    text, label = as_json
    if label is not None and not isinstance(json.loads(label), list):
        raise Wrong(f"the label is {label!r}")
    _same_json(made, arrays, vectors.parse_strict(text))
    if as_typed is None:
        if all(_is_text(a) for a in arrays):
            raise Wrong("refused for typed gRPC alone, without a reason")
        return True
    _same_message(made, arrays, vectors.unframed(as_typed[0]))
    return True


def _answer(encode: Any, plan: Any, body: bytes) -> tuple[bytes, bytes | None] | None:
    try:
        reply: tuple[bytes, bytes | None] = encode(plan, vectors.framed(body))
    except Refused as refused:
        error = json.loads(refused.json)
        labelled(error, codes=(13,))
        if error["details"][0]["reason"] != "BAD_ANSWER":
            raise Wrong(f"a server's mistake is called {error}") from refused
        return None
    return reply


def _is_text(array: Any) -> bool:
    if array.dtype != object:
        return True
    try:
        for item in array.reshape(-1):
            item.decode()
    except UnicodeDecodeError:
        return False
    return True


def _rows(made: Model, arrays: list[Any]) -> list[list[Any]]:
    if not made.contract.batching:
        return [arrays]
    return [[a[r] for a in arrays] for r in range(len(arrays[0]))]


def _same_json(made: Model, arrays: list[Any], document: Any) -> None:
    rows = document["predictions"] if made.contract.batching else [document]
    expected = _rows(made, arrays)
    names = [f.name for f in made.contract.outputs]
    if len(rows) != len(expected) or any(list(row) != names for row in rows):
        raise Wrong(f"the rows are {rows}")
    for row, values in zip(rows, expected, strict=True):
        for field, value in zip(made.contract.outputs, values, strict=True):
            if not vectors.same_values(field.datatype, value, row[field.name]):
                raise Wrong(f"{field.name} is {row[field.name]}; the server said {value}")


def _same_message(made: Model, arrays: list[Any], message: bytes) -> None:
    parsed: Any = made.classes.response.FromString(message)
    expected: Any = made.classes.response()
    for values in _rows(made, arrays):
        into = expected.predictions.add() if made.contract.batching else expected
        vectors.fill(into, made.contract.outputs, values)
    if parsed != expected and str(parsed) != str(expected):  # equal, or equal but for NaN
        raise Wrong(f"the message is {parsed}; the server said {expected}")


def stream_body(made: Model, rng: random.Random) -> bytes:
    """Some answers of a stream, framed and mutated as a whole; the first byte says how it will be cut."""
    answers = [bodies.answer_body(made, rng) for _ in range(rng.randint(0, 3))]
    inner = [service_pb2.ModelInferResponse.FromString(a) for a in answers]
    messages = [service_pb2.ModelStreamInferResponse(infer_response=a).SerializeToString() for a in inner]
    stream = b"".join(vectors.framed(m) for m in messages)
    return bytes([rng.randint(1, 255)]) + bodies.mutate(stream, rng, bodies.WIRE_BITS)


def check_stream(scripts: Scripts, made: Model, plan: Any, body: bytes) -> bool:
    """However a stream is cut, the same comes out of it, and the same error ends it."""
    size, stream = max(body[0], 1) if body else 1, body[1:]
    whole = _streamed(scripts, plan, [stream])
    cut = _streamed(scripts, plan, [stream[i : i + size] for i in range(0, len(stream), size)])
    if whole[1] != cut[1] or (whole[1] is None and whole[0] != cut[0]):
        raise Wrong(f"whole: {whole}; cut into pieces of {size}: {cut}")
    return whole[1] is None


def _streamed(scripts: Scripts, plan: Any, chunks: list[bytes]) -> tuple[bytes, str | None]:
    try:
        return scripts.stream(plan, chunks), None
    except Refused as refused:
        error = json.loads(refused.json)
        labelled(error, codes=(13,))
        return b"", f"{error['details'][0]['reason']}: {error['message']}"


TARGETS: Sequence[Target] = (
    Target(
        "json requests",
        lambda made, rng: bodies.mutate(bodies.json_body(made, rng), rng, bodies.JSON_BITS),
        check_json_request,
    ),
    Target(
        "typed requests",
        lambda made, rng: bodies.mutate(bodies.typed_body(made, rng), rng, bodies.WIRE_BITS),
        check_typed_request,
    ),
    Target(
        "answers",
        lambda made, rng: bodies.mutate(bodies.answer_body(made, rng), rng, [*bodies.WIRE_BITS, rng.randbytes(8)]),
        check_answer,
    ),
    Target("streams", stream_body, check_stream),
)
