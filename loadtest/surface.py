"""A model's typed API as its callers find it: read from the gateway by gRPC reflection, nothing imported from it.

Used by the Locust users to make request bytes once, before the first request, so that the load generator spends its
time on sending.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from loadtest.examples import Example


class UnknownModel(Exception):
    """The gateway serves no such model; the message names those it serves."""


class WrongExample(Exception):
    """An example does not fit the model's contract; the message says which field."""


@dataclass(frozen=True, slots=True)
class TypedApi:
    """One model's typed API: `Predict` on `grpc_path`, and the same as JSON on `http_path`."""

    model: str
    grpc_path: str
    http_path: str
    request: Descriptor
    response: Descriptor

    @property
    def batching(self) -> bool:
        """Whether requests carry `instances`, each with the inputs, or the inputs themselves."""
        field = self.request.fields_by_name.get("instances")
        return field is not None and field.message_type is not None

    def json_body(self, example: Example) -> str:
        return json.dumps(self._body(example), separators=(",", ":"))

    def grpc_body(self, example: Example) -> bytes:
        """The serialised PredictRequest of one example. Raises WrongExample."""
        message: Message = GetMessageClass(self.request)()
        try:
            json_format.ParseDict(self._body(example), message)
        except json_format.ParseError as error:
            raise WrongExample(f"an example does not fit {self.request.full_name}: {error}") from error
        return message.SerializeToString()

    def answered(self, body: bytes) -> bool:
        """Whether a serialised PredictResponse carries an answer."""
        message: Message = GetMessageClass(self.response)()
        message.ParseFromString(body)
        return bool(message.ListFields())

    def _body(self, example: Example) -> dict[str, Any]:
        instance = dict(example.instance)
        return {"instances": [instance]} if self.batching else instance


def find_model(channel: grpc.Channel, model: str) -> TypedApi:
    """Ask the gateway behind `channel` for the model's API (the newest major). Raises UnknownModel, grpc.RpcError."""
    database = ProtoReflectionDescriptorDatabase(channel)
    prefix = "penstock.models."
    served = [name for name in database.get_services() if name.startswith(prefix)]
    key = model.replace("-", "_")
    majors = {int(name.split(".")[3].removeprefix("v")): name for name in served if name.split(".")[2] == key}
    if not majors:
        names = ", ".join(sorted({name.split(".")[2] for name in served})) or "no model at all"
        raise UnknownModel(f"model {model!r}: expected a model the gateway serves, which are: {names}")
    major = max(majors)
    method = DescriptorPool(database).FindServiceByName(majors[major]).methods_by_name["Predict"]
    return TypedApi(
        model=model,
        grpc_path=f"/{majors[major]}/Predict",
        http_path=f"/v{major}/models/{model}:predict",
        request=method.input_type,
        response=method.output_type,
    )
