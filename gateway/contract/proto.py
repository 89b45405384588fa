"""Contract -> the .proto text that callers download, read and generate code from.

`gateway.contract.descriptor` builds the same file as a descriptor; a test compiles this text and compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.contract.descriptor import default_json_name, json_name
from gateway.contract.model import Contract, Field
from gateway.contract.words import datatype_note, values_in_words


def proto_text(contract: Contract, *, annotations: bool = True) -> str:
    """The file's text. `annotations=False` leaves out google.api.http, and with it the file's only import."""
    return "\n".join(_file(contract, annotations)) + "\n"


def _file(contract: Contract, annotations: bool) -> Iterator[str]:
    yield f'// The model "{contract.model}", as Penstock serves it. Made from the model\'s own signature: do not edit.'
    yield "//"
    yield f"//   gRPC  {contract.full_service}/Predict"
    yield f"//   JSON  POST {contract.predict_http_path}"
    yield ""
    yield 'syntax = "proto3";'
    yield ""
    yield f"package {contract.package};"
    yield ""
    if annotations:
        yield 'import "google/api/annotations.proto";'
        yield ""
    yield "option java_multiple_files = true;"
    yield ""
    yield from _service(contract, annotations)
    yield ""
    if contract.batching:
        rows = f"1 to {contract.max_rows} rows" if contract.max_rows > 1 else "One row"
        yield from _rows("PredictRequest", f"{rows} to predict; each is predicted by itself.", "Instance instances")
        yield ""
        yield from _message("Instance", "One row: what the model takes. All fields are required.", contract.inputs)
        yield ""
        yield from _rows("PredictResponse", "One prediction per instance, in the same order.", "Prediction predictions")
        yield ""
        yield from _message("Prediction", "What the model gives for one row.", contract.outputs)
    else:
        yield from _message("PredictRequest", "What the model takes. All fields are required.", contract.inputs)
        yield ""
        yield from _message("PredictResponse", "What the model gives.", contract.outputs)


def _service(contract: Contract, annotations: bool) -> Iterator[str]:
    yield f"service {contract.service} {{"
    if not annotations:
        yield "  rpc Predict(PredictRequest) returns (PredictResponse);"
    else:
        # The leading dot: a model may be called "google", and names are looked up from the inside out.
        yield "  rpc Predict(PredictRequest) returns (PredictResponse) {"
        yield "    option (.google.api.http) = {"
        yield f'      post: "{contract.predict_http_path}"'
        yield '      body: "*"'
        yield "    };"
        yield "  }"
    yield "}"


def _rows(name: str, comment: str, field: str) -> Iterator[str]:
    yield f"message {name} {{"
    yield f"  // {comment}"
    yield f"  repeated {field} = 1;"
    yield "}"


def _message(name: str, comment: str, fields: Iterable[Field]) -> Iterator[str]:
    yield f"// {comment}"
    yield f"message {name} {{"
    for position, field in enumerate(fields):
        if position:
            yield ""
        yield f"  // {values_in_words(field.tensor)}."
        if note := datatype_note(field.datatype):
            yield f"  // {note}"
        label = "repeated" if field.repeated else "optional"
        public = json_name(field)
        option = "" if public == default_json_name(field.proto_name) else f" [json_name = {_quoted(public)}]"
        yield f"  {label} {field.proto_type} {field.proto_name} = {field.number}{option};"
    yield "}"


def _quoted(text: str) -> str:
    """A proto string literal: quotes, backslashes and control characters escaped as octal bytes, the rest as it is."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _octal(c) for c in text) + '"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8"))
