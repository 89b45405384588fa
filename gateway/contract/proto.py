"""Contract -> the .proto text that callers download, read and generate code from.

`gateway.contract.descriptor` builds the same file as a descriptor; a test compiles this text and compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.contract.descriptor import default_json_name, json_name
from gateway.contract.model import Contract, Field, NoTypedApi, ShapeField
from gateway.contract.words import OPTIONAL, datatype_note, labels_in_words, on_one_line, values_in_words


def proto_text(contract: Contract, *, annotations: bool = True) -> str:
    """The file's text. `annotations=False` leaves out google.api.http, and with it the file's only import.

    Raises NoTypedApi.
    """
    if not contract.typed:
        raise NoTypedApi(contract)
    return "\n".join(_file(contract, annotations)) + "\n"


def _file(contract: Contract, annotations: bool) -> Iterator[str]:
    yield f'// The model "{contract.model}", as Penstock serves it. Made from the model\'s own signature: do not edit.'
    yield "//"
    yield f"//   gRPC  {contract.full_service}/{contract.method}"
    if contract.unary:
        yield f"//   JSON  POST {contract.predict_http_path}"
    yield ""
    yield 'syntax = "proto3";'
    yield ""
    yield f"package {contract.package};"
    yield ""
    if annotations and contract.unary:
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
        yield from _message("Instance", f"One row: {_takes(contract)}", contract.inputs)
        yield ""
        yield from _rows("PredictResponse", "One prediction per instance, in the same order.", "Prediction predictions")
        yield ""
        yield from _message("Prediction", "What the model gives for one row.", contract.outputs)
    else:
        takes = _takes(contract)
        yield from _message("PredictRequest", takes[:1].upper() + takes[1:], contract.inputs)
        yield ""
        yield from _message("PredictResponse", "What the model gives.", contract.outputs)


def _takes(contract: Contract) -> str:
    optional = any(tensor.optional for tensor in contract.takes)
    return "what the model takes. " + (
        "All fields are required but those called optional." if optional else "All fields are required."
    )


def _service(contract: Contract, annotations: bool) -> Iterator[str]:
    yield f"service {contract.service} {{"
    if contract.decoupled:
        yield "  // Any number of answers, as the model makes them."
        yield "  rpc PredictStream(PredictRequest) returns (stream PredictResponse);"
    elif not annotations:
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
        for line in _comment(field):
            yield f"  // {line}"
        label = "repeated" if field.repeated else "optional"
        yield f"  {label} {field.proto_type} {field.proto_name} = {field.number}{_json_option(field)};"
        if field.shape_field:
            yield f"  // The shape of {field.proto_name}: its {len(field.tensor.shape)} sizes in order."
            shape = field.shape_field
            yield f"  repeated sfixed64 {shape.proto_name} = {shape.number}{_json_option(shape)};"
    yield "}"


def _comment(field: Field) -> Iterator[str]:
    if said := on_one_line(field.tensor.description):
        yield said
    shape_name = field.shape_field.proto_name if field.shape_field else ""
    yield f"{values_in_words(field.tensor, shape_name)}."
    if note := datatype_note(field.datatype):
        yield note
    if field.tensor.optional:
        yield OPTIONAL
    if labels := labels_in_words(field.tensor.labels):
        yield labels


def _json_option(field: Field | ShapeField) -> str:
    public = json_name(field)
    return "" if public == default_json_name(field.proto_name) else f" [json_name = {_quoted(public)}]"


def _quoted(text: str) -> str:
    """A proto string literal: quotes, backslashes and control characters escaped as octal bytes, the rest as it is."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _octal(c) for c in text) + '"'


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8"))
