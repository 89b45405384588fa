"""The data that tells `tensors.lua` how to transcode for one version.

The script is the same for every model; what differs between models is in here and arrives with the routes: the id of
a context as Lua `filter_context` of a route or entry, the context itself in the route's metadata.
"""

from __future__ import annotations

from enum import StrEnum

from adapters.signature import Datatype
from gateway.contract.model import Field
from gateway.envoy.lua_literal import lua_literal
from gateway.envoy.snapshot import Json, content_hash
from gateway.envoy.state import ModelLimits, ServedVersion

TENSORS_FILTER = "penstock.tensors"
_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"

LABEL_NAMES = ("label", "output_label")
"""What hand-written models and skl2onnx call the predicted label."""

_LABEL_DATATYPES = frozenset(Datatype) - {Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64}


class Kind(StrEnum):
    """The protocols of a prediction; the script takes another way for each."""

    JSON = "json"
    GRPC = "grpc"
    OIP_HTTP = "oip_http"
    OIP_GRPC = "oip_grpc"


_DECOUPLED = {Kind.GRPC: "grpc_stream", Kind.JSON: "json_refused"}
"""`kind` of typed calls to a decoupled model: gRPC streams its answers, JSON over HTTP cannot."""


def tensors_context(version: ServedVersion, kind: Kind, limits: ModelLimits) -> Json:
    """`typed_per_filter_config` that makes the tensors filter work for this version and protocol.

    `id` is the hash of everything else: the script compiles a context once and caches it by id.
    """
    contract = version.contract
    context: Json = {
        "kind": _DECOUPLED.get(kind, kind.value) if contract.decoupled else kind.value,
        "model": contract.model,
        "version": str(version.version),
        "served_name": version.served_name,
        "served_version": version.served_version,
        "batching": contract.batching,
        "max_rows": contract.max_rows,
        # Envoy's own limit is the larger of the route's and the connection's window: the exact one is the script's.
        "max_bytes": limits.request_bytes,
        "max_bytes_from": limits.request_bytes_from,
        "timeout_s": limits.timeout_s,
        "label": label_output(contract.outputs),
        "inputs": [_field(f) for f in contract.inputs],
        "outputs": [_field(f) for f in contract.outputs],
    }
    context["id"] = content_hash(context)
    return {TENSORS_FILTER: {"@type": _PER_ROUTE, "filter_context": context}}


def context_id(tensors: Json) -> Json:
    """A `tensors_context` with its id alone. The rest is for the route's metadata: `contexts_by_id`.

    Envoy copies the whole `filter_context` for every request and again for its answer; the script needs it once per id.
    (Metadata alone would not do: the entries of a weighted route have none of their own.)
    """
    own = tensors[TENSORS_FILTER]
    return {TENSORS_FILTER: own | {"filter_context": {"id": own["filter_context"]["id"]}}}


def contexts_by_id(*tensors: Json) -> Json:
    """Metadata of a route: the contexts of all its entries, by id, each as the text of a Lua table."""
    contexts = [each[TENSORS_FILTER]["filter_context"] for each in tensors]
    return {"filter_metadata": {TENSORS_FILTER: {context["id"]: lua_literal(context) for context in contexts}}}


def no_tensors() -> Json:
    """`typed_per_filter_config` for routes that are not predictions: the script never sees them."""
    return {TENSORS_FILTER: {"@type": _PER_ROUTE, "disabled": True}}


def label_output(outputs: tuple[Field, ...]) -> str:
    """Name of the output that is the predicted label, "" if none is: what feedback is compared with.

    A label is one value per row that is not a fraction. Of several, the one with a label's usual name.
    """
    names = [f.name for f in outputs if f.datatype in _LABEL_DATATYPES and f.tensor.shape in ((), (1,))]
    usual = next((name for name in LABEL_NAMES if name in names), None)
    return usual or (names[0] if len(names) == 1 else "")


def _field(field: Field) -> Json:
    return {
        "name": field.name,
        "proto_name": field.proto_name,
        "number": field.number,
        "datatype": field.datatype.value,
        "shape": list(field.tensor.shape),
        "repeated": field.repeated,
        **({"optional": True} if field.tensor.optional else {}),
        **({"shape_field": field.shape_field.to_json()} if field.shape_field else {}),
    }
