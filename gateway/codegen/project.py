"""The files of a project, from the templates of its language.

A template's path is the file's path in the project and ".j2", with `__key__` and `__Service__` for the model's names.
What is the same for every language (the proto without annotations, google.rpc's error details, the example input) is
added here, so that all examples read the same input and explain the same errors.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import jinja2

from gateway.codegen.formats import Format, UnknownFormat
from gateway.codegen.python_types import python_field
from gateway.contract.descriptor import descriptor_set, proto_file_name
from gateway.contract.examples import example_proto_json, example_request, example_response
from gateway.contract.model import Contract, NoTypedApi
from gateway.contract.openapi import model_document
from gateway.contract.proto import proto_text
from gateway.contract.snippets import Gateway, snippets

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("gateway.codegen"),
    # Source code and Markdown, not HTML; what comes from a model is quoted where it is used (filter `literal`).
    autoescape=False,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["literal"] = lambda text: json.dumps(text, ensure_ascii=False)

_GOOGLE_RPC = ("google/rpc/status.proto", "google/rpc/error_details.proto")
_NEEDS_GOOGLE_RPC = frozenset({Format.CPP, Format.JAVA, Format.KOTLIN, Format.SWIFT})
"""Languages without a package of google.rpc's messages, or (Debian's Java) with one that has no ErrorInfo."""

_ROW_LIMIT = 1_000
"""Numbers in an example file that is still laid out for reading."""


def project(format: Format, contract: Contract, gateway: Gateway) -> dict[str, bytes]:
    """Path in the project -> content. Raises NoTypedApi; UnknownFormat for a project of a model that streams."""
    if not contract.typed:
        raise NoTypedApi(contract)
    if not contract.unary and format not in (Format.PROTO, Format.DESCRIPTOR, Format.OPENAPI):
        raise UnknownFormat(f"{contract.model} answers in streams: expected proto, descriptor or openapi")
    match format:
        case Format.PROTO:
            return {f"{contract.key}.proto": proto_text(contract, annotations=False).encode()}
        case Format.OPENAPI:
            return {f"{contract.key}.openapi.json": _json(model_document(contract))}
        case Format.DESCRIPTOR:
            return {f"{contract.key}.binpb": descriptor_set([contract]).SerializeToString()}
        case Format.CURL:
            return {f"{contract.key}.sh": f"{snippets(contract, gateway)[0].text}\n".encode()}
        case _:
            return dict(_project(format, contract, gateway))


def zipped(files: Mapping[str, bytes]) -> bytes:
    """One archive; the same files give the same bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in files.items():
            written.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def _project(format: Format, contract: Contract, gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    yield f"proto/{proto_file_name(contract)}", proto_text(contract, annotations=False).encode()
    # The Python client takes rows as the JSON API does; the others read their messages from proto3's own JSON.
    yield "example.json", _json((example_request if format is Format.PYTHON else example_proto_json)(contract))
    if format in _NEEDS_GOOGLE_RPC:
        for path in _GOOGLE_RPC:
            yield f"proto/{path}", files("google.rpc").joinpath(path.rpartition("/")[2]).read_bytes()
    context = _context(contract, gateway)
    root = files("gateway.codegen").joinpath("templates", format.value)
    for path in _paths(root):
        name = path.removesuffix(".j2").replace("__key__", contract.key).replace("__Service__", contract.service)
        yield name, _TEMPLATES.get_template(f"{format.value}/{path}").render(context).encode()


def _context(contract: Contract, gateway: Gateway) -> Mapping[str, Any]:
    return {
        "contract": contract,
        "model": contract.model,
        "key": contract.key,
        "service": contract.service,
        "package": contract.package,
        "major": contract.major,
        "namespace": ".".join(_camel(part) for part in contract.package.split(".")),
        "csharp_namespace": ".".join(_camel_after_digits(part) for part in contract.package.split(".")),
        "cpp_package": contract.package.replace(".", "::"),
        # protoc-gen-es puts a "$" behind what TypeScript knows already.
        "ts_service": f"{contract.service}$" if contract.service in ("Object", "Partial") else contract.service,
        "go_module": f"example.com/{contract.key}",
        "proto": proto_file_name(contract),
        "authority": gateway.authority,
        "url": gateway.url,
        "tls": gateway.tls,
        "inputs": [python_field(field) for field in contract.inputs],
        "outputs": [python_field(field) for field in contract.outputs],
        "example": _json(example_request(contract)).decode(),
        "answer": _json(example_response(contract)).decode(),
    }


def _camel(name: str) -> str:
    """As protoc's generators for Ruby and Swift write a package's part."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _camel_after_digits(name: str) -> str:
    """As protoc's generator for C# does: res2net -> Res2Net."""
    return re.sub(r"[0-9][a-z]", lambda found: found[0].upper(), _camel(name))


def _paths(folder: Traversable, prefix: str = "") -> Iterator[str]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _paths(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}"


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if text.count("\n") > _ROW_LIMIT:
        text = json.dumps(value, ensure_ascii=False)
    return f"{text}\n".encode()
