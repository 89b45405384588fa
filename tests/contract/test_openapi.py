"""OpenAPI documents are whole: every reference resolves, every schema is one, every example is valid."""

# mypy: disable-error-code="import-untyped"
# jsonschema publishes no types.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from gateway.contract.examples import example_request, example_response
from gateway.contract.openapi import merged_document, model_document
from gateway.contract.openapi_common import ERRORS_OF_FEEDBACK, Document
from tests.contract.cases import CONTRACTS, UNARY

DOCUMENTS = {model: model_document(contract) for model, contract in CONTRACTS.items()}
DOCUMENTS["all models"] = merged_document(CONTRACTS.values())
ROOT = "urn:document"


def validator(document: Document, schema: dict[str, Any]) -> Draft202012Validator:
    registry: Registry[Any] = Registry().with_resource(ROOT, DRAFT202012.create_resource(document))
    pointed = schema if "$ref" not in schema else {"$ref": ROOT + schema["$ref"]}
    return Draft202012Validator(_absolute(pointed), registry=registry)


def _absolute(value: Any) -> Any:
    """References made absolute, so that they resolve in a schema taken out of its document."""
    if isinstance(value, dict):
        return {k: ROOT + v if k == "$ref" and v.startswith("#") else _absolute(v) for k, v in value.items()}
    return [_absolute(v) for v in value] if isinstance(value, list) else value


def schema_of(document: Document, model: str, message: str) -> dict[str, Any]:
    contract = CONTRACTS[model]
    return {"$ref": f"#/components/schemas/{contract.key}.v{contract.major}.{message}"}


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


def references(document: Document) -> Iterator[str]:
    return (node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_resolves_and_nothing_is_unused(name: str) -> None:
    document = DOCUMENTS[name]
    used = set(references(document))
    for reference in used:
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found
    declared = {f"#/components/{kind}/{key}" for kind, members in document["components"].items() for key in members}
    assert declared == used


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_is_a_json_schema(name: str) -> None:
    for schema in DOCUMENTS[name]["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_example_in_the_document_is_valid(name: str) -> None:
    document = DOCUMENTS[name]
    examples = [node for node in nodes(document["paths"]) if "example" in node]
    examples += [node for node in nodes(document["components"]["responses"]) if "example" in node]
    assert len(examples) > len(ERRORS_OF_FEEDBACK)
    for media in examples:
        validator(document, media["schema"]).validate(media["example"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_operation_has_its_own_id_and_says_its_errors(name: str) -> None:
    operations = [item["post"] for item in DOCUMENTS[name]["paths"].values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all("400" in operation["responses"] for operation in operations)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_path_parameters_are_declared(name: str) -> None:
    for path, item in DOCUMENTS[name]["paths"].items():
        declared = {p["name"] for p in item.get("parameters", ()) if p["in"] == "path"}
        assert declared == ({"version"} if "{version}" in path else set())


@pytest.mark.parametrize("model", UNARY)
def test_examples_of_any_size_fit_the_schemas(model: str) -> None:
    document = DOCUMENTS[model]
    for message, example in (
        ("PredictRequest", example_request(CONTRACTS[model])),
        ("PredictResponse", example_response(CONTRACTS[model])),
    ):
        validator(document, schema_of(document, model, message)).validate(example)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("iris", {"instances": [{"x": [1, 2, 3]}]}),
        ("iris", {"instances": [{"x": [1, 2, 3, "4"]}]}),
        ("iris", {"instances": [{"x": [1, 2, 3, 1e39]}]}),
        ("iris", {"instances": [{"x": [1, 2, 3, 4], "y": 1}]}),
        ("iris", {"instances": [{}]}),
        ("iris", {"instances": []}),
        ("iris", {"instances": [{"x": [0, 0, 0, 0]}] * 65}),
        ("iris", {"x": [1, 2, 3, 4]}),
        ("digits-v2", {"instances": [{"image": [[0] * 8] * 7}]}),
        ("digits-v2", {"instances": [{"image": [0] * 63}]}),
        ("tokens", {"instances": [{"input_ids": [1.5], "attention_mask": [1]}]}),
        ("tokens", {"instances": [{"input_ids": [2**63], "attention_mask": [1]}]}),
        ("matrix", {"a": [[1, 2]], "scale": 1}),
        ("matrix", {"a": [[1, 2, 3]], "scale": [1]}),
        ("optional", {"instances": [{"bias": [1, 2]}]}),
        ("two-dynamic", {"instances": [{"pixels": [], "x": [[1]], "x_shape": 1, "x_shape_2": [1]}]}),
    ],
)
def test_what_the_gateway_refuses_is_not_valid(model: str, body: Any) -> None:
    document = DOCUMENTS[model]
    with pytest.raises(jsonschema.ValidationError):
        validator(document, schema_of(document, model, "PredictRequest")).validate(body)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("iris", {"instances": [{"x": ["NaN", "Infinity", "-Infinity", 1e38]}]}),
        ("digits-v2", {"instances": [{"image": [0.5] * 64}]}),
        ("tokens", {"instances": [{"input_ids": [2**63 - 1, -(2**63)], "attention_mask": []}]}),
        ("matrix", {"a": [[1, 2, 3], [4, 5, 6]], "scale": 1e300}),
        ("sentiment", {"instances": [{"text": ["good"]}, {"text": [{"b64": "/wA="}]}]}),
        ("image", {"instances": [{"pixels": {"b64": "AAEC"}}]}),
        ("optional", {"instances": [{"x": [1, 2]}]}),
        ("optional", {"instances": [{"x": [1, 2], "bias": [1, 2], "note": "why"}]}),
        ("two-dynamic", {"instances": [{"pixels": [[[1, 2, 3]]], "x": [[1], [2]], "x_shape": 7}]}),
        ("two-dynamic", {"instances": [{"pixels": [], "x": [1, 2], "x_shape_2": [2, 1], "x_shape": 7}]}),
    ],
)
def test_what_the_gateway_takes_is_valid(model: str, body: Any) -> None:
    document = DOCUMENTS[model]
    validator(document, schema_of(document, model, "PredictRequest")).validate(body)


def test_the_merged_document_has_the_paths_of_every_model_once() -> None:
    merged = DOCUMENTS["all models"]["paths"]
    assert set(merged) == {path for model in CONTRACTS for path in DOCUMENTS[model]["paths"]}


@pytest.mark.parametrize("model", sorted(set(CONTRACTS) - set(UNARY)))
def test_what_json_does_not_carry_has_no_operation_and_says_why(model: str) -> None:
    document = DOCUMENTS[model]
    assert set(document["paths"]) == {"/v1/feedback"}
    why = "PredictStream" if CONTRACTS[model].decoupled else "served through Open Inference Protocol alone, because "
    assert why in document["info"]["description"]
    (tag,) = [tag for tag in DOCUMENTS["all models"]["tags"] if tag["name"] == model]
    assert why in tag["description"]


def test_class_names_are_in_the_document() -> None:
    properties = DOCUMENTS["optional"]["components"]["schemas"]["optional.v1.Prediction"]["properties"]
    assert properties["label"]["x-labels"][1] == "dog"
    assert 'Classes by index: 0 cat, 1 dog, 2 it\'s a "bird".' in properties["label"]["description"]
    assert properties["scores"]["description"].endswith("19 class 19 ... 30 in all.")


def test_a_long_example_is_left_out() -> None:
    media = DOCUMENTS["image"]["paths"]["/v1/models/image:predict"]["post"]["requestBody"]["content"]
    assert "example" not in media["application/json"]
