"""protoc, run in this process (grpc_tools), for the tests that compile what was generated."""

# mypy: disable-error-code="import-untyped"
# grpc_tools publishes no types.

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import google.api.annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

WELL_KNOWN = str(files("grpc_tools") / "_proto")
GOOGLEAPIS = str(Path(google.api.annotations_pb2.__file__).parents[2])


def run_protoc(folder: Path, *arguments: str) -> None:
    arguments = ("protoc", f"-I{folder}", f"-I{WELL_KNOWN}", f"-I{GOOGLEAPIS}", *arguments)
    assert protoc.main(arguments) == 0, "protoc refused the file; its reason is above"


def compile_texts(folder: Path, texts: Mapping[str, str]) -> dict[str, FileDescriptorProto]:
    """Descriptors by file name, as protoc makes them."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    out = folder / "all.binpb"
    run_protoc(folder, f"--descriptor_set_out={out}", *texts)
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


def without_options(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file without options, and without the import that only an option needs."""
    plain = FileDescriptorProto()
    plain.CopyFrom(file)
    plain.ClearField("options")
    plain.ClearField("dependency")
    for service in plain.service:
        for method in service.method:
            method.ClearField("options")
    return plain
