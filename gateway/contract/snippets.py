"""Commands and code that call a model, ready to paste: shown on the docs page, and run by the tests.

Each snippet works as it stands against the gateway it names. A model whose example would be unreadably long gets
one that makes its input on the spot.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.contract.examples import (
    example_inputs,
    example_proto_json,
    example_request,
    example_shape,
    example_value,
    is_readable,
)
from gateway.contract.model import Contract


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where callers reach the gateway, as an authority: 'host:port'."""

    authority: str = "127.0.0.1:8080"
    tls: bool = False

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Snippet:
    title: str
    text: str


def snippets(contract: Contract, gateway: Gateway) -> list[Snippet]:
    """For a typed contract; an untyped one has `gateway.contract.open_inference.calls`."""
    grpcurl = (
        [Snippet("grpcurl", _grpcurl(contract, gateway))]
        if is_readable(example_inputs(contract), contract.dynamic_size)
        else []
    )
    if contract.decoupled:
        return grpcurl
    return [Snippet("curl", _curl(contract, gateway)), Snippet("Python", _python(contract, gateway)), *grpcurl]


def _curl(contract: Contract, gateway: Gateway) -> str:
    url = shlex.quote(gateway.url + contract.predict_http_path)
    header = "-H 'content-type: application/json'"
    if is_readable(example_inputs(contract), contract.dynamic_size):
        body = shlex.quote(json.dumps(example_request(contract), ensure_ascii=False))
        return f"curl {url} \\\n  {header} \\\n  -d {body}"
    request = f'{{"instances": [{_python_row(contract)}]}}' if contract.batching else _python_row(contract)
    program = shlex.quote(f"import json; print(json.dumps({request}))")
    return f"python3 -c {program} |\n  curl {url} \\\n  {header} --data-binary @-"


def _python(contract: Contract, gateway: Gateway) -> str:
    return "\n".join(
        [
            "from penstock_client import Client",
            "",
            f"with Client({literal(gateway.url)}) as client:",
            f"    answer = client.predict({literal(contract.model)}, {_python_row(contract)})",
            "    print(answer.row, answer.version)",
        ]
    )


def _grpcurl(contract: Contract, gateway: Gateway) -> str:
    body = shlex.quote(json.dumps(example_proto_json(contract), ensure_ascii=False))
    plain = "" if gateway.tls else "-plaintext "
    return f"grpcurl {plain}-d {body} \\\n  {shlex.quote(gateway.authority)} {contract.full_service}/{contract.method}"


def _python_row(contract: Contract) -> str:
    if is_readable(example_inputs(contract), contract.dynamic_size):
        body = example_request(contract)
        return literal(body["instances"][0] if contract.batching else body)
    return "{" + ", ".join(_python_members(contract)) + "}"


def _python_members(contract: Contract) -> Iterator[str]:
    for field in example_inputs(contract):
        expression = literal(example_value(field.datatype, 0))
        for size in reversed(example_shape(field.tensor, contract.dynamic_size)):
            expression = f"[{expression}] * {size}"
        yield f"{literal(field.name)}: {expression}"


def literal(value: Any) -> str:
    """A Python literal with double quotes, which need no quoting in a shell's single ones."""
    match value:
        case str():
            # A lone surrogate cannot be written out, and escaped it means the same.
            return json.dumps(value, ensure_ascii=any("\ud800" <= char <= "\udfff" for char in value))
        case dict():
            return "{" + ", ".join(f"{literal(name)}: {literal(member)}" for name, member in value.items()) + "}"
        case list():
            return "[" + ", ".join(literal(member) for member in value) + "]"
        case _:
            return repr(value)
