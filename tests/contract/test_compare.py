"""The verdict on a new version's signature, and words that a person can act on."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.compare import Outcome, compare
from gateway.contract.derive import derive
from tests.contract.cases import SIGNATURES, signature

FP32, FP64, INT32, INT64, BYTES = Datatype.FP32, Datatype.FP64, Datatype.INT32, Datatype.INT64, Datatype.BYTES
Tensors = dict[str, tuple[Datatype, tuple[int, ...]]]

X: Tensors = {"x": (FP32, (4,))}
Y: Tensors = {"label": (INT64, ()), "scores": (FP32, (3,))}


class Pair(NamedTuple):
    what: str
    before: Signature
    after: Signature
    outcome: Outcome
    reasons: tuple[str, ...] = ()


SAME, GROWS, BREAKS = Outcome.IDENTICAL, Outcome.COMPATIBLE, Outcome.BREAKING


def change(what: str, outcome: Outcome, reasons: tuple[str, ...], *, x: Tensors = X, y: Tensors = Y) -> Pair:
    return Pair(what, signature(X, Y, 8), signature(x, y, 8), outcome, reasons)


def of_shapes(what: str, outcome: Outcome, reasons: tuple[str, ...], before: Tensors, after: Tensors) -> Pair:
    return Pair(what, signature(before, Y, 8), signature(after, Y, 8), outcome, reasons)


def answers(what: str, outcome: Outcome, reasons: tuple[str, ...], before: Tensors, after: Tensors) -> Pair:
    return Pair(what, signature(X, before, 8), signature(X, after, 8), outcome, reasons)


def optional(what: str, outcome: Outcome, reasons: tuple[str, ...], before: bool | None, after: bool | None) -> Pair:
    """Pairs of an input b that is optional or not, or (None) not there."""

    def of(is_optional: bool | None) -> Signature:
        plain = signature(X, Y, 8)
        more = () if is_optional is None else (TensorSpec("b", FP32, (2,), optional=is_optional),)
        return replace(plain, inputs=(*plain.inputs, *more))

    return Pair(what, of(before), of(after), outcome, reasons)


def classes(what: str, outcome: Outcome, reasons: tuple[str, ...], before: str, after: str) -> Pair:
    """Pairs of a label whose classes are called by these letters."""

    def of(letters: str) -> Signature:
        return replace(signature(X, {}, 8), outputs=(TensorSpec("label", INT64, (), labels=tuple(letters)),))

    return Pair(what, of(before), of(after), outcome, reasons)


PLAIN = signature(X, Y, 8)
STREAM = replace(PLAIN, decoupled=True)
UNTYPED = replace(PLAIN, obstacles=("it keeps state",))

PAIRS = [
    change("nothing changes", SAME, ()),
    change("outputs in another order", SAME, (), y=dict(reversed(Y.items()))),
    of_shapes(
        "inputs in another order",
        SAME,
        (),
        {"a": (FP32, ()), "b": (INT64, ())},
        {"b": (INT64, ()), "a": (FP32, ())},
    ),
    # Batching.
    Pair("more rows", signature(X, Y, 8), signature(X, Y, 16), GROWS, ("max_rows: was 8, is 16",)),
    Pair(
        "fewer rows", signature(X, Y, 8), signature(X, Y, 4), BREAKS, ("max_rows: was 8, is 4: larger requests fail",)
    ),
    Pair("batching ends", signature(X, Y, 8), signature(X, Y), BREAKS, ("batching: callers send instances",)),
    Pair("batching begins", signature(X, Y), signature(X, Y, 8), BREAKS, ("batching: callers send a single request",)),
    # Inputs.
    change("input's datatype", BREAKS, ("inputs.x: datatype was FP32, is FP64",), x={"x": (FP64, (4,))}),
    change("input longer", BREAKS, ("inputs.x: shape was [4], is [5]: what callers send",), x={"x": (FP32, (5,))}),
    change("input's rank", BREAKS, ("inputs.x: rank was 1 (shape [4]), is 2",), x={"x": (FP32, (2, 2))}),
    change("input becomes a scalar", BREAKS, ("inputs.x: rank was 1",), x={"x": (FP32, ())}),
    change("new input", BREAKS, ("inputs.age: is new and required (INT32 [])",), x={**X, "age": (INT32, ())}),
    change(
        "input renamed",
        BREAKS,
        ("inputs.x: is gone (renamed to 'features'? give it its old name back)", "inputs.features: is new"),
        x={"features": (FP32, (4,))},
    ),
    change(
        "input replaced by another kind",
        BREAKS,
        ("inputs.x: is gone; callers send it", "inputs.text: is new"),
        x={"text": (BYTES, (1,))},
    ),
    of_shapes("input removed", BREAKS, ("inputs.b: is gone; callers send it",), {**X, "b": (FP32, ())}, X),
    of_shapes(
        "input's fixed dimension becomes dynamic",
        GROWS,
        ("inputs.x: shape was [4], is [-1]: it takes more than before",),
        X,
        {"x": (FP32, (DYNAMIC,))},
    ),
    of_shapes(
        "input's dynamic dimension becomes fixed",
        BREAKS,
        ("inputs.x: shape was [-1], is [4]: what callers send no longer fits",),
        {"x": (FP32, (DYNAMIC,))},
        X,
    ),
    of_shapes(
        "input's other dimension becomes the dynamic one",
        BREAKS,
        ("inputs.x: shape was [-1, 3], is [3, -1]",),
        {"x": (FP32, (DYNAMIC, 3))},
        {"x": (FP32, (3, DYNAMIC))},
    ),
    of_shapes(
        "input gets a second dynamic dimension",
        BREAKS,
        ("inputs.x: the number of values no longer tells the shape [-1, -1], and callers do not send one",),
        {"x": (FP32, (DYNAMIC, 3))},
        {"x": (FP32, (DYNAMIC, DYNAMIC))},
    ),
    of_shapes("input's names differ in case", BREAKS, ("inputs.x: is gone (renamed to 'X'?",), X, {"X": X["x"]}),
    # Outputs.
    answers("new output", GROWS, ("outputs.extra: is new (FP32 [2])",), Y, {**Y, "extra": (FP32, (2,))}),
    answers("output removed", BREAKS, ("outputs.scores: is gone; callers read it",), Y, {"label": (INT64, ())}),
    answers(
        "output renamed",
        BREAKS,
        ("outputs.scores: is gone (renamed to 'probabilities'?",),
        Y,
        {"label": (INT64, ()), "probabilities": (FP32, (3,))},
    ),
    answers(
        "output's datatype",
        BREAKS,
        ("outputs.label: datatype was INT64, is BYTES",),
        Y,
        {**Y, "label": (BYTES, ())},
    ),
    answers(
        "one more class",
        BREAKS,
        ("outputs.scores: shape was [3], is [4]: callers rely on the old size",),
        Y,
        {**Y, "scores": (FP32, (4,))},
    ),
    answers("scalar output becomes an array", BREAKS, ("outputs.label: rank was 0",), Y, {**Y, "label": (INT64, (1,))}),
    answers(
        "output's fixed dimension becomes dynamic",
        BREAKS,
        ("outputs.scores: shape was [3], is [-1]: callers rely on the old size",),
        Y,
        {**Y, "scores": (FP32, (DYNAMIC,))},
    ),
    answers(
        "output's dynamic dimension becomes fixed",
        GROWS,
        ("outputs.scores: shape was [-1], is [3]: within what callers expect",),
        {**Y, "scores": (FP32, (DYNAMIC,))},
        Y,
    ),
    answers("no output left", BREAKS, ("typed API: it would end: the model has no outputs",), Y, {}),
    # Shapes that callers say.
    of_shapes(
        "a shape that is said stays", SAME, (), {"x": (FP32, (DYNAMIC, DYNAMIC))}, {"x": (FP32, (DYNAMIC, DYNAMIC))}
    ),
    of_shapes(
        "one of two dynamic dimensions becomes fixed",
        BREAKS,
        ("inputs.x: shape was [-1, -1], is [-1, 3]: what callers send no longer fits",),
        {"x": (FP32, (DYNAMIC, DYNAMIC))},
        {"x": (FP32, (DYNAMIC, 3))},
    ),
    of_shapes(
        "three dynamic dimensions instead of two",
        GROWS,
        ("inputs.x: shape was [-1, -1, 3], is [-1, -1, -1]: it takes more than before",),
        {"x": (FP32, (DYNAMIC, DYNAMIC, 3))},
        {"x": (FP32, (DYNAMIC, DYNAMIC, DYNAMIC))},
    ),
    answers(
        "an output's shape is no longer told by its values",
        BREAKS,
        ("outputs.scores: shape was [-1, 3], is [-1, -1]: callers rely on the old size",),
        {**Y, "scores": (FP32, (DYNAMIC, 3))},
        {**Y, "scores": (FP32, (DYNAMIC, DYNAMIC))},
    ),
    # Optional inputs.
    optional("an optional input is new", GROWS, ("inputs.b: is new and optional (FP32 [2])",), None, True),
    optional("an optional input stays", SAME, (), True, True),
    optional("an optional input is gone", BREAKS, ("inputs.b: is gone; callers may send it",), True, None),
    optional("an input becomes optional", GROWS, ("inputs.b: was required, is optional",), False, True),
    optional(
        "an input becomes required",
        BREAKS,
        ("inputs.b: was optional, is required: callers may leave it out",),
        True,
        False,
    ),
    # Class names.
    classes("class names stay", SAME, (), "ab", "ab"),
    classes("class names begin", GROWS, ("outputs.label: has class names now ('a', 'b')",), "", "ab"),
    classes("class names end", BREAKS, ("outputs.label: its 2 class names are gone",), "ab", ""),
    classes("classes change places", BREAKS, ("outputs.label: class 0 was 'a', is 'b': callers take",), "ab", "ba"),
    classes("one class more", BREAKS, ("outputs.label: has classes that callers do not know: 'c'",), "ab", "abc"),
    classes("one class less", BREAKS, ("outputs.label: has lost the classes 'c'",), "abc", "ab"),
    classes(
        "many classes more",
        BREAKS,
        ("outputs.label: has classes that callers do not know: 'b', 'c', 'd', 'e', 'f' and 2",),
        "a",
        "abcdefgh",
    ),
    # Streams.
    Pair("answers become a stream", PLAIN, STREAM, BREAKS, ("answers: callers expect one answer, and this version",)),
    Pair("a stream becomes one answer", STREAM, PLAIN, BREAKS, ("answers: callers read a stream of answers",)),
    Pair("a stream stays one", STREAM, STREAM, SAME),
    # Typed and untyped.
    Pair("the typed API ends", PLAIN, UNTYPED, BREAKS, ("typed API: it would end: it keeps state",)),
    Pair("the typed API begins", UNTYPED, PLAIN, GROWS, ("typed API: begins",)),
    Pair("untyped stays untyped", UNTYPED, UNTYPED, SAME),
    Pair(
        "an untyped model's tensors are compared too",
        UNTYPED,
        replace(UNTYPED, inputs=(TensorSpec("x", FP64, (4,)),)),
        BREAKS,
        ("inputs.x: datatype was FP32, is FP64",),
    ),
]


@pytest.mark.parametrize("pair", PAIRS, ids=[pair.what for pair in PAIRS])
def test_verdict(pair: Pair) -> None:
    verdict = compare(derive("m", pair.before), pair.after)
    assert verdict.outcome is pair.outcome
    lines = [str(found) for found in verdict.changes]
    assert len(lines) >= len(pair.reasons)
    for reason in pair.reasons:
        assert any(line.startswith(reason) for line in lines), lines


def test_a_breaking_verdict_names_the_api_lists_every_reason_and_says_what_to_do() -> None:
    verdict = compare(derive("m", signature(X, Y, 8)), signature({"x": (FP64, (5,))}, {"label": (INT64, ())}, 16))
    assert str(verdict) == "\n".join(
        [
            "this version would break callers of penstock.models.m.v1.M:",
            "  - inputs.x: datatype was FP32, is FP64",
            "  - inputs.x: shape was [4], is [5]: what callers send no longer fits",
            "  - outputs.scores: is gone; callers read it",
            "Export the model with what is listed above as it was; or publish it as a new API beside this one with "
            "`--new-api-major`; or deploy it under a new name.",
        ]
    )


def test_a_compatible_verdict_lists_what_grew() -> None:
    verdict = compare(derive("m", signature(X, Y, 8)), signature(X, Y, 16))
    assert "breaks no caller" in str(verdict)
    assert "max_rows: was 8, is 16" in str(verdict)


@pytest.mark.parametrize("model", SIGNATURES)
def test_identical_means_that_the_contract_stays_equal(model: str) -> None:
    locked = derive(model, SIGNATURES[model])
    assert compare(locked, SIGNATURES[model]).outcome is Outcome.IDENTICAL
    assert derive(model, SIGNATURES[model], locked) == locked
