"""One completed inference on Triton, for any kind of model: the proof that a version answers at all.

Used by `adapters.triton.client` with made-up inputs. What differs between kinds of models is here: a decoupled model
answers only on a stream, with any number of responses; a model with state answers only within a sequence.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from adapters.server import Served
from adapters.signature import Signature

SEQUENCE: Final = (
    "it keeps state from call to call (sequence batching), and a typed call cannot say which sequence it belongs to"
)
"""The obstacle (`adapters.signature`) of a model with state."""


async def ask_once(
    client: Any, served: Served, signature: Signature, inputs: Sequence[Any], *, timeout_s: float
) -> None:
    """Return when the whole answer is there. Raises tritonclient's InferenceServerException."""
    call: dict[str, Any] = {
        "model_name": served.name,
        "model_version": served.version,
        "inputs": inputs,
        "outputs": [triton.InferRequestedOutput(spec.name) for spec in signature.outputs],
    }
    if SEQUENCE in signature.obstacles:
        # A sequence of one request, under a number that no caller's sequence has.
        call |= {"sequence_id": 1 + secrets.randbelow(2**63 - 1), "sequence_start": True, "sequence_end": True}
    if not signature.decoupled:
        await client.infer(**call, client_timeout=timeout_s)
        return
    try:
        async with asyncio.timeout(timeout_s):
            async for _answer, error in client.stream_infer(_one(call), stream_timeout=timeout_s):
                if error is not None:
                    raise error
    except TimeoutError as error:
        raise InferenceServerException(
            "the stream of answers had no end", status="StatusCode.DEADLINE_EXCEEDED"
        ) from error


async def _one(call: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield call
