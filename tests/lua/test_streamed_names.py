"""Open Inference gRPC is edited as a stream of chunks: wherever the chunks are cut, the messages come out right."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.lua import vectors
from tests.lua.conftest import DIGITS
from tests.lua.scripts import Scripts


def edited(scripts: Scripts, stream: bytes, cuts: list[int], *, is_answer: bool) -> bytes:
    oip = scripts.require("oip_grpc")
    state = oip[b"new"](scripts.plan(DIGITS.context()), is_answer)
    edges = [0, *sorted(c % (len(stream) + 1) for c in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    return b"".join(oip[b"edit"](state, piece) for piece in pieces if piece)


def messages(stream: bytes) -> list[bytes]:
    found = []
    while stream:
        size = int.from_bytes(stream[1:5], "big")
        assert stream[0] == 0
        assert len(stream) >= 5 + size
        found.append(stream[5 : 5 + size])
        stream = stream[5 + size :]
    return found


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
BODIES = st.lists(st.binary(max_size=3000), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(bodies=BODIES, cuts=CUTS)
def test_every_request_of_a_stream_names_the_servers_model(
    scripts: Scripts, bodies: list[bytes], cuts: list[int]
) -> None:
    sent = [service_pb2.ModelInferRequest(model_name="digits", id="7", raw_input_contents=[b]) for b in bodies]
    stream = b"".join(vectors.framed(m.SerializeToString()) for m in sent)
    received = [
        service_pb2.ModelInferRequest.FromString(m) for m in messages(edited(scripts, stream, cuts, is_answer=False))
    ]
    for message in sent:
        message.model_name, message.model_version = "digits.3", "1"
    assert received == sent


@settings(max_examples=200, deadline=None)
@given(bodies=BODIES, cuts=CUTS, streamed=st.booleans(), raw=st.booleans())
def test_every_answer_of_a_stream_speaks_of_the_public_model(
    scripts: Scripts, bodies: list[bytes], cuts: list[int], streamed: bool, raw: bool
) -> None:
    answers = [service_pb2.ModelInferResponse(model_name="digits.3", model_version="1", id="7") for _ in bodies]
    for answer, body in zip(answers, bodies, strict=True):
        answer.outputs.add(name="digits.3", datatype="BYTES", shape=[1])
        if raw:
            answer.raw_output_contents.append(body)

    def wrapped(answer: Any) -> Any:
        return service_pb2.ModelStreamInferResponse(infer_response=answer) if streamed else answer

    stream = b"".join(vectors.framed(wrapped(a).SerializeToString()) for a in answers)
    kind = service_pb2.ModelStreamInferResponse if streamed else service_pb2.ModelInferResponse
    received = [kind.FromString(m) for m in messages(edited(scripts, stream, cuts, is_answer=True))]
    for answer in answers:
        answer.model_name, answer.model_version = "digits", "3"
    assert received == [wrapped(a) for a in answers]


@settings(max_examples=100, deadline=None)
@given(name=st.text(min_size=1, max_size=80), version=st.sampled_from(["", "4"]), padding=st.integers(0, 3000))
def test_the_name_is_found_wherever_it_stands(scripts: Scripts, name: str, version: str, padding: int) -> None:
    fields = service_pb2.ModelInferRequest(model_name=name, model_version=version).SerializeToString()
    # A library that does not write fields in order is allowed to put the tensors first.
    before = service_pb2.ModelInferRequest(raw_input_contents=[bytes(padding)]).SerializeToString() if padding else b""
    body = vectors.framed(before + fields)
    peek = scripts.require("oip_grpc")[b"peek"]
    found = peek(lambda start, size: body[int(start) : int(start) + int(size)], len(body))
    got_name, got_version = found if isinstance(found, tuple) else (found, None)
    assert got_name == name.encode()
    assert (got_version or b"") == version.encode()
