"""Open Inference Protocol calls of a model, ready to paste: what the docs page shows where there is no typed API.

Made from the tensors alone, so that it serves models whose names or shapes no typed API can carry.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from math import prod
from urllib.parse import quote

from adapters.signature import Datatype, TensorSpec
from gateway.contract.examples import example_shape, example_value, is_readable_shape
from gateway.contract.model import Contract
from gateway.contract.snippets import Gateway, Snippet, literal

_NUMPY: dict[Datatype, str] = {
    Datatype.BOOL: "np.bool_",
    Datatype.FP16: "np.float16",
    Datatype.BF16: "ml_dtypes.bfloat16",
    Datatype.FP32: "np.float32",
    Datatype.FP64: "np.float64",
    Datatype.BYTES: "np.object_",
}

NOT_IN_JSON = frozenset({Datatype.FP16, Datatype.BF16})
"""Open Inference Protocol has no JSON form of them: only the binary form of HTTP, and gRPC."""


def metadata_path(contract: Contract) -> str:
    return f"/v2/models/{quote(contract.model)}"


def infer_path(contract: Contract) -> str:
    return f"/v2/models/{quote(contract.model)}/infer"


def calls(contract: Contract, gateway: Gateway) -> list[Snippet]:
    """tritonclient, and curl where the protocol's JSON form can carry the tensors."""
    if contract.decoupled:
        return [Snippet("Python, tritonclient over gRPC", _streamed(contract, gateway))]
    found = [Snippet("Python, tritonclient", _tritonclient(contract, gateway))]
    tensors = (*_given(contract), *contract.gives)
    if NOT_IN_JSON.isdisjoint(t.datatype for t in tensors) and is_readable_shape(*map(_shape(contract), tensors)):
        found.append(Snippet("curl", _curl(contract, gateway)))
    return found


def _given(contract: Contract) -> Sequence[TensorSpec]:
    """The inputs that a call gives: as in the examples of typed models."""
    return tuple(tensor for tensor in contract.takes if not tensor.optional) or contract.takes


def _shape(contract: Contract) -> Callable[[TensorSpec], tuple[int, ...]]:
    """The shape on the wire, one row: a scalar is a tensor of one element there."""
    rows = (1,) if contract.batching else ()
    return lambda tensor: (*rows, *(example_shape(tensor, contract.dynamic_size) or (1,)))


def _inputs(contract: Contract) -> Iterator[str]:
    shape_of = _shape(contract)
    yield "inputs = []"
    for tensor in _given(contract):
        shape = list(shape_of(tensor))
        value = 'b"text"' if tensor.datatype is Datatype.BYTES else literal(example_value(tensor.datatype, 0))
        dtype = _NUMPY.get(tensor.datatype, f"np.{tensor.datatype.value.lower()}")
        yield f"inputs.append(triton.InferInput({literal(tensor.name)}, {shape}, {literal(tensor.datatype.value)}))"
        yield f"inputs[-1].set_data_from_numpy(np.full({shape}, {value}, {dtype}))"


def _tritonclient(contract: Contract, gateway: Gateway) -> str:
    return "\n".join(
        [
            *_imports(contract),
            "import tritonclient.http as triton",
            "",
            *_inputs(contract),
            _client(gateway),
            f"    answer = client.infer({literal(contract.model)}, inputs)",
            *(f"    print({literal(t.name)}, answer.as_numpy({literal(t.name)}))" for t in contract.gives),
        ]
    )


def _streamed(contract: Contract, gateway: Gateway) -> str:
    return "\n".join(
        [
            "import queue",
            "",
            *_imports(contract),
            "import tritonclient.grpc as triton",
            "",
            *_inputs(contract),
            "answers = queue.Queue()",
            _client(gateway),
            "    client.start_stream(lambda result, error: answers.put(error or result),",
            f'                        headers={{"x-penstock-model": {literal(contract.model)}}})',
            f"    client.async_stream_infer({literal(contract.model)}, inputs, enable_empty_final_response=True)",
            "    while True:",
            "        answer = answers.get(timeout=60)",
            "        if isinstance(answer, Exception):",
            "            raise answer",
            '        if answer.get_response().parameters["triton_final_response"].bool_param:',
            "            break",
            *(f"        print({literal(t.name)}, answer.as_numpy({literal(t.name)}))" for t in contract.gives),
        ]
    )


def _imports(contract: Contract) -> list[str]:
    """numpy has no bfloat16."""
    bfloat16 = any(tensor.datatype is Datatype.BF16 for tensor in _given(contract))
    return [*(["import ml_dtypes"] if bfloat16 else []), "import numpy as np"]


def _client(gateway: Gateway) -> str:
    tls = ", ssl=True" if gateway.tls else ""
    return f"with triton.InferenceServerClient({literal(gateway.authority)}{tls}) as client:"


def _curl(contract: Contract, gateway: Gateway) -> str:
    shape_of = _shape(contract)
    inputs = [
        {
            "name": tensor.name,
            "shape": list(shape_of(tensor)),
            "datatype": tensor.datatype.value,
            "data": [example_value(tensor.datatype, i) for i in range(prod(shape_of(tensor)))],
        }
        for tensor in _given(contract)
    ]
    url, body = shlex.quote(gateway.url + infer_path(contract)), shlex.quote(json.dumps({"inputs": inputs}))
    return f"curl {url} \\\n  -H 'content-type: application/json' \\\n  -d {body}"
