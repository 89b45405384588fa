"""Contract -> HTML pages for callers: one per model with a form to try it, and an index of all models.

Served under /docs. Every page is one file: no script, style or font comes from elsewhere, so it works offline and
under a strict policy. Everything that comes from a model is escaped by the templates (jinja2's autoescape).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import jinja2

from gateway.contract.derive import Obstacle
from gateway.contract.examples import example_request, example_shape, example_value, is_readable
from gateway.contract.model import Contract, Field
from gateway.contract.snippets import Gateway, snippets
from gateway.contract.words import values_in_words

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("gateway.contract"),
    # Style and script are this package's own text and are included into HTML as they are.
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def docs_path(model: str) -> str:
    return f"/docs/{model}"


def proto_path(contract: Contract) -> str:
    return f"/v{contract.major}/models/{contract.model}.proto"


def openapi_path(contract: Contract) -> str:
    return f"/v{contract.major}/models/{contract.model}/openapi.json"


def model_page(contract: Contract, *, gateway: Gateway, stable: int | None = None, versions: Sequence[int] = ()) -> str:
    """The page of a typed model. `gateway` is the address callers use, for the snippets."""
    readable = is_readable(contract.inputs)
    return _TEMPLATES.get_template("model.html").render(
        contract=contract,
        inputs=[_row(field) for field in contract.inputs],
        outputs=[_row(field) for field in contract.outputs],
        versions=_versions(stable, versions),
        example=_pretty(example_request(contract)) if readable else "",
        snippets=snippets(contract, gateway),
        proto_path=proto_path(contract),
        openapi_path=openapi_path(contract),
        form_data={
            "path": contract.predict_http_path,
            "batching": contract.batching,
            "readable": readable,
            "inputs": [
                {
                    "name": field.name,
                    "shape": example_shape(field.tensor),
                    "value": example_value(field.datatype, 0),
                }
                for field in contract.inputs
            ],
        },
    )


def untyped_page(model: str, obstacles: Sequence[Obstacle]) -> str:
    """The page of a model that has no typed API, and why."""
    return _TEMPLATES.get_template("untyped.html").render(
        model=model,
        obstacles=obstacles,
        metadata_path=f"/v2/models/{quote(model)}",
        infer_path=f"/v2/models/{quote(model)}/infer",
    )


def index_page(contracts: Iterable[Contract], untyped: Iterable[str] = ()) -> str:
    """The list of all models; `untyped` names those served through Open Inference Protocol only."""
    return _TEMPLATES.get_template("index.html").render(
        typed=[
            {
                "name": contract.model if contract.major == 1 else f"{contract.model} v{contract.major}",
                "page": docs_path(contract.model),
                "proto": proto_path(contract),
                "openapi": openapi_path(contract),
                "takes": ", ".join(field.name for field in contract.inputs),
                "gives": ", ".join(field.name for field in contract.outputs),
            }
            for contract in sorted(contracts, key=lambda contract: (contract.model, contract.major))
        ],
        untyped=[{"name": name, "page": docs_path(quote(name))} for name in sorted(untyped)],
    )


def _row(field: Field) -> dict[str, str]:
    label = "repeated" if field.repeated else "optional"
    return {
        "name": field.name,
        "description": f"{values_in_words(field.tensor)}.",
        "declaration": f"{label} {field.proto_type} {field.proto_name} = {field.number}",
    }


def _versions(stable: int | None, versions: Sequence[int]) -> str:
    answers = f"Version {stable} answers." if stable is not None else ""
    pinnable = ", ".join(str(v) for v in sorted(versions))
    return f"{answers} Versions that can be pinned: {pinnable}.".strip() if versions else answers


def _pretty(body: dict[str, Any]) -> str:
    """Indented by row and field, each tensor on one line."""
    if "instances" not in body or not isinstance(body["instances"], list):
        return "{\n" + _members(body, "  ") + "\n}"
    rows = ",\n".join("    {\n" + _members(row, "      ") + "\n    }" for row in body["instances"])
    return '{\n  "instances": [\n' + rows + "\n  ]\n}"


def _members(row: dict[str, Any], indent: str) -> str:
    dumps = json.dumps
    return ",\n".join(
        f"{indent}{dumps(name, ensure_ascii=False)}: {dumps(value, ensure_ascii=False)}" for name, value in row.items()
    )
