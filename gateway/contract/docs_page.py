"""Contract -> HTML pages for callers: one per model with a form to try it, and an index of all models.

Served under /docs. Every page is one file: no script, style or font comes from elsewhere, so it works offline and
under a strict policy. Everything that comes from a model is escaped by the templates (jinja2's autoescape).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2

from adapters.signature import TensorSpec
from gateway.contract.examples import example_inputs, example_request, example_shape, example_value, is_readable
from gateway.contract.model import Contract, Field
from gateway.contract.open_inference import calls, infer_path, metadata_path
from gateway.contract.snippets import Gateway, snippets
from gateway.contract.words import on_one_line, tensor_in_sentences, values_in_words

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("gateway.contract"),
    # Style and script are this package's own text and are included into HTML as they are.
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def docs_path(model: str, major: int = 1) -> str:
    return f"/docs/{model}" if major == 1 else f"/v{major}/models/{model}/docs"


def proto_path(contract: Contract) -> str:
    return f"/v{contract.major}/models/{contract.model}.proto"


def openapi_path(contract: Contract) -> str:
    return f"/v{contract.major}/models/{contract.model}/openapi.json"


def model_page(contract: Contract, *, gateway: Gateway, stable: int | None = None, versions: Sequence[int] = ()) -> str:
    """The page of a model; one without a typed API says why, and shows Open Inference calls.

    `gateway` is the address callers use, for the snippets.
    """
    if not contract.typed:
        return _untyped_page(contract, gateway, _versions(stable, versions))
    given = example_inputs(contract)
    readable = is_readable(given, contract.dynamic_size)
    return _TEMPLATES.get_template("model.html").render(
        contract=contract,
        inputs=[_row(field) for field in contract.inputs],
        outputs=[_row(field) for field in contract.outputs],
        versions=_versions(stable, versions),
        example=_pretty(example_request(contract)) if readable else "",
        snippets=[*snippets(contract, gateway), *(calls(contract, gateway) if contract.decoupled else ())],
        proto_path=proto_path(contract),
        openapi_path=openapi_path(contract),
        form_data={
            "path": contract.predict_http_path,
            "batching": contract.batching,
            "readable": readable,
            "inputs": [
                {
                    "name": field.name,
                    "shape": example_shape(field.tensor, contract.dynamic_size),
                    "value": example_value(field.datatype, 0),
                }
                for field in given
            ],
        },
    )


def _untyped_page(contract: Contract, gateway: Gateway, versions: str) -> str:
    return _TEMPLATES.get_template("untyped.html").render(
        model=contract.model,
        obstacles=[on_one_line(obstacle) for obstacle in contract.obstacles],
        inputs=[_untyped_row(tensor) for tensor in contract.untyped_inputs],
        outputs=[_untyped_row(tensor) for tensor in contract.untyped_outputs],
        batching=contract.batching,
        max_rows=contract.max_rows,
        versions=versions,
        metadata_path=metadata_path(contract),
        infer_path=infer_path(contract),
        snippets=calls(contract, gateway) if contract.untyped_inputs else [],
    )


def index_page(contracts: Iterable[Contract]) -> str:
    """The list of all models; those without a typed API apart."""
    ordered = sorted(contracts, key=lambda contract: (contract.model, contract.major))
    return _TEMPLATES.get_template("index.html").render(
        typed=[
            {
                "name": _name(contract),
                "page": docs_path(contract.model, contract.major),
                "proto": proto_path(contract),
                "openapi": openapi_path(contract),
                "takes": ", ".join(field.name for field in contract.inputs),
                "gives": ", ".join(field.name for field in contract.outputs),
            }
            for contract in ordered
            if contract.typed
        ],
        untyped=[{"name": _name(c), "page": docs_path(c.model, c.major)} for c in ordered if not c.typed],
    )


def _name(contract: Contract) -> str:
    return contract.model if contract.major == 1 else f"{contract.model} v{contract.major}"


def _row(field: Field) -> dict[str, Any]:
    label = "repeated" if field.repeated else "optional"
    shape = field.shape_field
    declarations = [f"{label} {field.proto_type} {field.proto_name} = {field.number}"]
    if shape:
        declarations.append(f"repeated sfixed64 {shape.proto_name} = {shape.number}")
    return {
        "name": field.name,
        "description": tensor_in_sentences(field.tensor, values_in_words(field.tensor, shape.name if shape else "")),
        "declarations": declarations,
    }


def _untyped_row(tensor: TensorSpec) -> dict[str, Any]:
    # Open Inference requests say every shape, and know no tensor without a dimension of its own.
    values = f"{tensor.datatype}, shape {list(tensor.shape) or [1]}"
    return {"name": on_one_line(tensor.name), "description": tensor_in_sentences(tensor, values), "declarations": []}


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
