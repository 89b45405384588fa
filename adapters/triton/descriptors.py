"""The Open Inference Protocol's service, as protobuf files for gRPC server reflection.

Handed to the gateway's reflection as plain descriptors, so that only the adapters know tritonclient.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2


def inference_service_files() -> tuple[FileDescriptorProto, ...]:
    """`inference.GRPCInferenceService` and what it imports."""
    files = []
    for module in (model_config_pb2, service_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return tuple(files)
