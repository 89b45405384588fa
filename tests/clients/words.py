"""Names that programming languages have a use of their own for, and a model made of them.

`test_projects.py` runs protoc's generators on them, `languages/test_reserved_words.py` the compilers.
"""

from __future__ import annotations

from adapters.signature import Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.model import Contract

MODELS = (
    *("class", "import", "default", "package", "new", "self", "type", "lambda", "object", "in"),
    # Names of standard libraries, of what the clients are made of, and of what they are called.
    *("std", "linux", "string", "system", "google", "grpc", "penstock", "http", "error", "promise", "call", "example"),
    *("model", "main", "client", "module", "res2net-v3"),
)

TENSORS = (
    *("class", "self", "new", "type", "import", "default", "package", "lambda", "func", "in", "is", "object", "from"),
    *("string", "bool", "int", "float", "value", "values", "hash", "method", "send", "map", "list", "name", "error"),
    # Members of generated messages, macros, and the accessors of other fields.
    *("descriptor", "Clear", "constructor", "toString", "reset", "proto_message", "get_type", "equals", "clone"),
    *("parser", "serialized_size", "unknown_fields", "all_fields", "linux", "errno", "NULL", "instance", "prediction"),
    *("image", "image_size", "has_image", "image_count", "image_list", "image_bytes", "clear_image", "set_image"),
    *("mutable_image", "Instance", "predict_request", "model", "answer", "call"),
)


def reserved(model: str) -> Contract:
    """A model of this name with all the tensors, every other one a scalar, batching or not by the name's length."""
    tensors = tuple(
        TensorSpec(name, Datatype.FP32 if place % 3 else Datatype.BYTES, (2,) if place % 2 else ())
        for place, name in enumerate(TENSORS)
    )
    return derive(model, Signature(tensors, tensors, max_batch_size=4 if len(model) % 2 else 0))
