"""Which routes a path belongs to: the model, its API major and its pinned version, on every protocol."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.scripts import Scripts

SYSTEM = (".system", None, None)
HTTP_PATHS = {
    "/v1/models/digits:predict": ("digits", "digits", None),
    "/v1/models/digits-b:predict?x=1": ("digits_b", "digits-b", None),
    "/v1/models/digits/versions/3:predict": ("digits", "digits", "3"),
    "/v1/models/digits%3Apredict": ("digits", "digits", None),
    "/v1/models/Digits:predict": (".unknown", "Digits", None),
    "/v1/models/digits": SYSTEM,
    "/v1/models/digits.proto": SYSTEM,
    "/v1/models/digits/openapi.json": SYSTEM,
    "/v1/models": SYSTEM,
    "/v0/models/digits:predict": SYSTEM,
    "/v02/models/digits:predict": SYSTEM,
    # A second major beside Open Inference, which has the same prefix.
    "/v2/models/digits:predict": ("digits.v2", "digits", None),
    "/v2/models/digits-b/versions/7:predict": ("digits_b.v2", "digits-b", "7"),
    "/v2/models/digits.proto": ("digits.v2", "digits", None),
    "/v2/models/digits/openapi.json": ("digits.v2", "digits", None),
    "/v2/models/digits/docs?dark=1": ("digits.v2", "digits", None),
    "/v2/models/digits/clients/python.zip": ("digits.v2", "digits", None),
    "/v2/models/digits": ("digits", "digits", None),
    "/v2/models/digits/infer": ("digits", "digits", None),
    "/v2/models/digits/ready": ("digits", "digits", None),
    "/v2/models/digits/versions/7": ("digits", "digits", "7"),
    "/v2/models/digits/versions/7/infer": ("digits", "digits", "7"),
    "/v2/models/Bad.Name:predict": (".unknown", "Bad.Name", None),
    "/v2/models/": SYSTEM,
    "/v2": SYSTEM,
    "/v2/health/ready": SYSTEM,
    "/v12/models/digits:predict": ("digits.v12", "digits", None),
    "/v3/models/digits": ("digits.v3", "digits", None),
    "/v3/models/digits/infer": ("digits.v3", "digits", None),
}
GRPC_PATHS = {
    "/penstock.models.digits.v1.Digits/Predict": ("digits", "digits", None),
    "/penstock.models.two_words.v1.TwoWords/Predict": ("two_words", "two_words", None),
    "/penstock.models.digits.v2.Digits/Predict": ("digits.v2", "digits", None),
    "/penstock.models.digits.v12.Digits/PredictStream": ("digits.v12", "digits", None),
    "/penstock.models.class_.v1.Class/Predict": ("class", "class", None),
    "/penstock.models.digits.v02.Digits/Predict": SYSTEM,
    "/penstock.models.digits.Digits/Predict": SYSTEM,
    "/grpc.health.v1.Health/Check": SYSTEM,
    "/inference.GRPCInferenceService/ServerLive": SYSTEM,
}


@pytest.mark.parametrize(("path", "expected"), (HTTP_PATHS | GRPC_PATHS).items())
def test_a_path_names_its_routes(scripts: Scripts, path: str, expected: tuple[str, str | None, str | None]) -> None:
    assert found(scripts, path) == expected
    assert found(scripts, path) == expected, "the same from memory"


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_an_open_inference_message_names_its_model_itself(scripts: Scripts, method: str) -> None:
    assert route(scripts, f"/inference.GRPCInferenceService/{method}")[b"peek"]


def test_an_open_inference_stream_names_its_model_in_metadata(scripts: Scripts) -> None:
    assert route(scripts, "/inference.GRPCInferenceService/ModelStreamInfer")[b"stream"]


def found(scripts: Scripts, path: str) -> tuple[str | None, ...]:
    named = route(scripts, path)
    return tuple(None if named[k] is None else named[k].decode() for k in (b"key", b"name", b"version"))


def route(scripts: Scripts, path: str) -> Any:
    return scripts.require("names")[b"of"](path.encode())
