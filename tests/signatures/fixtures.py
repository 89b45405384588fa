"""Tiny models of every signature that the typed API promises: datatypes, ranks, dynamic and empty dimensions, optional
inputs, class names, and tensor names that are no identifiers.

Each is made by code and small enough to be worked out on paper; most answer what they are given. The tests that use
them: `test_generated_code.py` (what is generated compiles, in Python and TypeScript) and
`tests/e2e/test_every_signature.py` (every protocol, through the real Envoy and Triton, gives onnxruntime's answer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx
from onnx import helper

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from tests import models

MAX_BATCH_SIZE = 64
"""What a model that batches gets when it is deployed without more."""

BOOL, UINT8, INT64, BYTES = Datatype.BOOL, Datatype.UINT8, Datatype.INT64, Datatype.BYTES
FP16, FP32, FP64 = Datatype.FP16, Datatype.FP32, Datatype.FP64
D = DYNAMIC

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fixture:
    """One model: the file, and the signature that it must be found to have.

    `notes` of the signature are not compared. `quick`: part of `make test`.
    """

    name: str
    signature: Signature
    artefact: Callable[[], bytes]
    quick: bool = False


def _echo(name: str, tensors: Sequence[tuple[str, str, Datatype, Shape]], *, batching: bool, quick: bool) -> Fixture:
    """A model whose outputs are its inputs; `tensors`: input name, output name, datatype, shape."""

    def artefact() -> bytes:
        return models.model(
            [helper.make_node("Identity", [given], [answered]) for given, answered, _, _ in tensors],
            [models.value(given, datatype, shape, batching=batching) for given, _, datatype, shape in tensors],
            [models.value(answered, datatype, shape, batching=batching) for _, answered, datatype, shape in tensors],
        )

    signature = Signature(
        tuple(TensorSpec(given, datatype, shape) for given, _, datatype, shape in tensors),
        tuple(TensorSpec(answered, datatype, shape) for _, answered, datatype, shape in tensors),
        MAX_BATCH_SIZE if batching else 0,
    )
    return Fixture(name, signature, artefact, quick)


def _one(name: str, datatype: Datatype, shape: Shape, *, batching: bool, quick: bool = False) -> Fixture:
    return _echo(name, [("x", "y", datatype, shape)], batching=batching, quick=quick)


def _whole(name: str, datatype: Datatype, shape: Shape) -> Fixture:
    """A dynamic first dimension that is no batch: a tensor beside it has none."""
    return _echo(name, [("x", "y", datatype, shape), ("one", "same", FP32, (1,))], batching=False, quick=False)


def _named(name: str, names: Sequence[str], *, batching: bool = True, quick: bool = False) -> Fixture:
    """Inputs of these names, and outputs of the same words in capitals or with a mark."""
    tensors = [(each, f"{each}'", FP32, (2,)) for each in names]
    return _echo(name, tensors, batching=batching, quick=quick)


def _spec(name: str, datatype: Datatype, shape: Shape) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def _datatypes() -> Iterator[Fixture]:
    for datatype in Datatype:
        word = datatype.value.lower()
        yield _one(f"{word}-rows", datatype, (2, 3), batching=True, quick=datatype is Datatype.BF16)
        yield _one(f"{word}-whole", datatype, (4,), batching=False)
    # onnxruntime's Python side cannot run a model that has both text and bfloat16.
    every = [(f"in_{d.value.lower()}", f"out_{d.value.lower()}", d) for d in Datatype if d is not Datatype.BF16]
    yield _one("bf16-scalar-rows", Datatype.BF16, (), batching=True)
    yield _one("bf16-scalar-whole", Datatype.BF16, (), batching=False)
    yield _echo("every-scalar-rows", [(*names, ()) for names in every], batching=True, quick=True)
    yield _echo("every-scalar-whole", [(*names, ()) for names in every], batching=False, quick=False)


def _shapes() -> Iterator[Fixture]:
    yield _one("rank-one-of-one", FP32, (1,), batching=True)
    yield _one("rank-three", FP32, (2, 1, 3), batching=True)
    yield _one("rank-four", INT64, (2, 1, 3, 2), batching=False)
    yield _one("rank-five", FP64, (1, 2, 1, 2, 2), batching=True)
    yield _one("image-channels-last", UINT8, (4, 5, 3), batching=True)
    # One dynamic dimension, inferred from the number of values.
    yield _one("dynamic-only", FP32, (D,), batching=True)
    yield _whole("dynamic-only-whole", BYTES, (D,))
    yield _one("dynamic-first", FP32, (D, 3), batching=True)
    yield _one("dynamic-middle", INT64, (2, D, 2), batching=False)
    yield _one("dynamic-last", FP16, (2, D), batching=True)
    # Several: their sizes are said.
    for datatype in (FP32, UINT8, BOOL, BYTES, FP16, INT64):
        word = datatype.value.lower()
        yield _one(f"two-dynamic-{word}", datatype, (D, D), batching=True, quick=datatype in (FP32, UINT8))
    yield _whole("two-dynamic-whole", FP32, (D, 3, D))
    yield _one("three-dynamic", FP64, (D, D, D), batching=True)
    yield _one("image-any-size", UINT8, (D, D, 3), batching=True)
    # No values at all.
    yield _one("empty", FP32, (0,), batching=False)
    yield _one("empty-rows", FP32, (2, 0), batching=True, quick=True)
    yield _whole("empty-dynamic", FP32, (D, 0))


def _windows() -> Iterator[Fixture]:
    """Models that take no sequence shorter than a window: their examples must be long enough."""

    def artefact(batching: bool) -> bytes:
        lead: Shape = (1,) if batching else (1, 1)
        return models.model(
            [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3])],
            [models.value("x", FP32, (*lead, D), batching=batching)],
            [models.value("y", FP32, (*lead, D), batching=batching)],
        )

    for batching in (True, False):
        shape: Shape = (1, D) if batching else (1, 1, D)
        signature = Signature(
            (_spec("x", FP32, shape),), (_spec("y", FP32, shape),), MAX_BATCH_SIZE if batching else 0, dynamic_size=8
        )
        yield Fixture(f"window-{'rows' if batching else 'whole'}", signature, partial(artefact, batching), batching)


def _several() -> Iterator[Fixture]:
    many = [(f"in{i}", f"out{i}", FP32, (2,)) for i in range(40)]
    yield _echo("forty-tensors", many, batching=True, quick=False)
    mixed = [
        ("image", "image_out", UINT8, (D, D, 3)),
        ("mask", "mask_out", BOOL, (D, D)),
        ("ids", "ids_out", INT64, (D,)),
        ("text", "text_out", BYTES, ()),
        ("scale", "scale_out", FP64, ()),
    ]
    yield _echo("mixed-rows", mixed, batching=True, quick=True)
    yield _echo("mixed-whole", mixed, batching=False, quick=False)
    # A tensor that has the very name which the shape of another would get.
    clash = [("x", "y", FP32, (D, D)), ("x_shape", "y_shape", INT64, (2,))]
    yield _echo("shape-names-clash", clash, batching=True, quick=False)


def _names() -> Iterator[Fixture]:
    yield _named("names-of-frameworks", ["input:0", "dense/BiasAdd", "x.1", "serving_default_x:0"], quick=True)
    yield _named("names-that-clash", ["x.1", "x_1", "X1", "x1", "x-1", "x 1"])
    yield _named("names-of-proto", ["message", "repeated", "package", "syntax", "float", "optional", "oneof"])
    yield _named("names-of-python", ["class", "def", "None", "lambda", "SerializeToString", "Clear", "self"])
    yield _named("names-of-others", ["constructor", "toString", "function", "interface", "new", "__proto__", "type"])
    yield _named("names-of-the-world", ["größe", "温度", "дата", "🙂", "é", "e\u0301"], quick=True)
    yield _named("names-of-json", ['quote"', "back\\slash", "line\nbreak", "tab\t", "[x]", "{}", "$ref"])
    yield _named("names-of-html", ["</script>", "<b>", "&amp;", "{{ x }}", "'", "`"], batching=False)
    yield _named("names-of-digits", ["0", "1", "00", "_", "__", "-"])
    yield _named("names-of-messages", ["instances", "predictions", "Instance", "inputs", "error"], batching=False)
    # Models, not tensors.
    for name in ("import", "google", "prediction", "instance", "self"):
        yield _one(name, FP32, (1,), batching=True)


def _optional() -> Iterator[Fixture]:
    for batching in (True, False):
        kind = "rows" if batching else "whole"
        rows = MAX_BATCH_SIZE if batching else 0
        shape = (2,) if batching else (D,)
        x, bias, y = (
            _spec("x", FP32, shape),
            replace(_spec("bias", FP32, shape), optional=True),
            _spec("y", FP32, shape),
        )
        yield Fixture(
            f"default-{kind}",
            Signature((x, bias), (y,), rows),
            partial(models.optional_bias, batching=batching),
            quick=batching,
        )
        x, more, y = (_spec(name, FP32, (2,)) for name in ("x", "more", "y"))
        yield Fixture(
            f"optional-type-{kind}",
            Signature((x, replace(more, optional=True)), (y,), rows),
            partial(models.optional_type, batching=batching),
        )


def _labelled() -> bytes:
    model = onnx.load_from_string(models.classifier())
    model.graph.input[0].doc_string = "sepal and petal, length and width, in cm"
    model.metadata_props.add(key="names", value="{0: 'setosa', 1: 'versicolor', 2: \"l'autre\"}")
    return bytes(model.SerializeToString())


def _real() -> Iterator[Fixture]:
    """What exporters make: answers that are worked out, class names, outputs that are left out."""
    names = ("setosa", "versicolor", "l'autre")
    label, scores = _spec("label", INT64, ()), _spec("probabilities", FP32, (3,))
    x = _spec("X", FP32, (4,))
    yield Fixture("classes", Signature((x,), (label, scores), MAX_BATCH_SIZE), models.classifier)
    yield Fixture(
        "classes-with-names",
        Signature(
            (replace(x, description="sepal and petal, length and width, in cm"),),
            (replace(label, labels=names), replace(scores, labels=names)),
            MAX_BATCH_SIZE,
        ),
        _labelled,
        quick=True,
    )
    yield Fixture("zipmap", Signature((_spec("X", FP32, (3,)),), (label,), MAX_BATCH_SIZE), models.zipmap_classifier)
    for batching in (True, False):
        kind, rows = ("rows", MAX_BATCH_SIZE) if batching else ("whole", 0)
        yield Fixture(
            f"sums-{kind}",
            Signature((_spec("x", FP32, (D,)),), (_spec("doubled", FP32, (D,)), _spec("total", FP32, ())), rows),
            partial(models.sums, batching=batching),
        )
        yield Fixture(
            f"exclaim-{kind}",
            Signature((_spec("x", BYTES, (2,)),), (_spec("y", BYTES, (2,)),), rows),
            partial(models.string_exclaim, batching=batching),
        )
        yield Fixture(
            f"scalars-{kind}",
            Signature(
                (_spec("a", FP32, ()), _spec("b", FP32, ())), (_spec("total", FP32, ()), _spec("same", BOOL, ())), rows
            ),
            partial(models.scalars, batching=batching),
        )


def _all() -> Mapping[str, Fixture]:
    made = (*_datatypes(), *_shapes(), *_windows(), *_several(), *_names(), *_optional(), *_real())
    by_name = {fixture.name: fixture for fixture in made}
    assert len(by_name) == len(made), "two fixtures have one name"
    return by_name


FIXTURES: Mapping[str, Fixture] = _all()
