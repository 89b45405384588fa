"""A typed gRPC client made from what the gateway serves: its `.proto` through protoc, or server reflection."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import google.api
import grpc
import httpx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc


class TypedClient:
    """Predict of one model; messages are filled from and read into plain values."""

    def __init__(self, channel: grpc.Channel, pool: Any, service: str) -> None:
        self.method = pool.FindServiceByName(service).methods_by_name["Predict"]
        self.request_class = message_factory.GetMessageClass(self.method.input_type)
        self.response_class = message_factory.GetMessageClass(self.method.output_type)
        self.call = channel.unary_unary(
            f"/{service}/Predict",
            request_serializer=self.request_class.SerializeToString,
            response_deserializer=self.response_class.FromString,
        )

    def request(self, rows: list[dict[str, Any]] | dict[str, Any]) -> Any:
        """A list of rows for a model that batches, one mapping for one that does not."""
        if isinstance(rows, dict):
            return self.request_class(**rows)
        return self.request_class(instances=rows)

    def encode(self, rows: list[dict[str, Any]] | dict[str, Any]) -> bytes:
        return bytes(self.request(rows).SerializeToString())

    def predict(self, rows: list[dict[str, Any]] | dict[str, Any]) -> list[dict[str, Any]] | dict[str, Any]:
        return self.read(self.call(self.request(rows), timeout=30))

    @staticmethod
    def read(response: Any) -> list[dict[str, Any]] | dict[str, Any]:
        def fields(message: Any) -> dict[str, Any]:
            return {
                field.name: list(getattr(message, field.name)) if field.is_repeated else getattr(message, field.name)
                for field in message.DESCRIPTOR.fields
            }

        if "predictions" in response.DESCRIPTOR.fields_by_name:
            return [fields(prediction) for prediction in response.predictions]
        return fields(response)


def from_proto(channel: grpc.Channel, url: str, model: str, service: str) -> TypedClient:
    """As a client's build does it: fetch the .proto, compile it."""
    text = httpx.get(f"{url}/v1/models/{model}.proto").raise_for_status().text
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "model.proto"), Path(folder, "model.pb")
        source.write_text(text)
        include = Path(google.api.__path__[0]).parents[1]
        status = protoc.main(
            [
                "protoc",
                f"-I{folder}",
                f"-I{include}",
                f"-I{files('grpc_tools') / '_proto'}",
                "--include_imports",
                f"--descriptor_set_out={out}",
                str(source),
            ]
        )
        assert status == 0, text
        described = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    return TypedClient(channel, pool, service)


def from_reflection(channel: grpc.Channel, service: str) -> TypedClient:
    return TypedClient(channel, descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel)), service)
