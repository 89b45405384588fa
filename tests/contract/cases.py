"""Signatures that the contract's tests share: from the ordinary to the odd. Golden files exist for `GOLDEN`."""

from __future__ import annotations

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.contract.derive import derive
from gateway.contract.model import Contract


def signature(
    inputs: dict[str, tuple[Datatype, tuple[int, ...]]],
    outputs: dict[str, tuple[Datatype, tuple[int, ...]]],
    max_batch_size: int = 0,
) -> Signature:
    return Signature(
        tuple(TensorSpec(name, datatype, shape) for name, (datatype, shape) in inputs.items()),
        tuple(TensorSpec(name, datatype, shape) for name, (datatype, shape) in outputs.items()),
        max_batch_size,
    )


_FP32, _INT64 = Datatype.FP32, Datatype.INT64

SIGNATURES: dict[str, Signature] = {
    "iris": signature({"x": (_FP32, (4,))}, {"label": (_INT64, ()), "probabilities": (_FP32, (3,))}, 64),
    "digits-v2": signature({"image": (_FP32, (8, 8))}, {"label": (_INT64, ()), "probabilities": (_FP32, (10,))}, 128),
    "sentiment": signature({"text": (Datatype.BYTES, (1,))}, {"score": (_FP32, (1,))}, 8),
    "tokens": signature(
        {"input_ids": (_INT64, (DYNAMIC,)), "attention_mask": (_INT64, (DYNAMIC,))},
        {"last_hidden_state": (_FP32, (DYNAMIC, 16))},
        4,
    ),
    "matrix": signature({"a": (_FP32, (DYNAMIC, 3)), "scale": (Datatype.FP64, ())}, {"b": (_FP32, (DYNAMIC, 3))}),
    "every-datatype": signature(
        {f"in_{d.lower()}": (d, (2,)) for d in Datatype}, {f"out_{d.lower()}": (d, (2,)) for d in Datatype}, 2
    ),
    "every-scalar": signature(
        {f"in_{d.lower()}": (d, ()) for d in Datatype}, {f"out_{d.lower()}": (d, ()) for d in Datatype}
    ),
    "odd-names": signature(
        {
            "input:0": (_FP32, (1,)),
            "dense/BiasAdd": (_FP32, (1,)),
            "x.1": (_FP32, (1,)),
            "x_1": (_FP32, ()),
            "X1": (_FP32, ()),
            "0": (_FP32, ()),
            "class": (_INT64, ()),
            "message": (_INT64, ()),
            "größe": (_INT64, ()),
            "温度": (_INT64, ()),
            "_": (_INT64, ()),
            "[x]": (_INT64, ()),
            'quote " \\ back\nline': (_INT64, ()),
            "</script><b>": (_INT64, ()),
            "{{ braces }}": (_INT64, ()),
            "it's": (_INT64, ()),
        },
        {"StatefulPartitionedCall:0": (_FP32, (2,)), "Clear": (_FP32, ()), "camelCase": (_FP32, ())},
        1,
    ),
    "image": signature({"pixels": (Datatype.UINT8, (3, 224, 224))}, {"embedding": (_FP32, (512,))}, 16),
    # Names that mean something to protobuf where the model's own name is put.
    "google": signature({"x": (_FP32, (1,))}, {"y": (_FP32, (1,))}, 4),
    "prediction": signature({"x": (_FP32, (1,))}, {"y": (_FP32, (1,))}, 4),
    "import": signature({"x": (_FP32, (1,))}, {"y": (_FP32, (1,))}),
    # What the number of values does not tell.
    "two-dynamic": signature(
        {"pixels": (Datatype.UINT8, (DYNAMIC, DYNAMIC, 3)), "x": (_FP32, (DYNAMIC, DYNAMIC)), "x_shape": (_INT64, ())},
        {"mask": (Datatype.BOOL, (DYNAMIC, DYNAMIC)), "nothing": (_FP32, (DYNAMIC, 0)), "0": (_FP32, (0,))},
        4,
    ),
    "optional": Signature(
        (
            TensorSpec("x", _FP32, (2,), description="where it is\n*/ // in metres"),
            TensorSpec("bias", _FP32, (2,), optional=True),
            TensorSpec("note", Datatype.BYTES, (), optional=True),
        ),
        (
            TensorSpec("label", _INT64, (), labels=("cat", "dog", 'it\'s\na "bird"')),
            TensorSpec("scores", _FP32, (30,), labels=tuple(f"class {i}" for i in range(30))),
        ),
        8,
    ),
    "all-optional": Signature(
        (TensorSpec("a", _FP32, (), optional=True), TensorSpec("b", _FP32, (DYNAMIC,), optional=True)),
        (TensorSpec("y", _FP32, ()),),
    ),
    "streams": Signature(
        (TensorSpec("prompt", Datatype.BYTES, (1,)),), (TensorSpec("token", Datatype.BYTES, (1,)),), decoupled=True
    ),
    # What has no typed API.
    "untyped": Signature(
        (TensorSpec("", _FP32, (DYNAMIC, 4)), TensorSpec("</ul><image>", Datatype.UINT8, (DYNAMIC, DYNAMIC, 3))),
        (TensorSpec("y", _FP32, ()),),
        8,
    ),
    "broken-name": Signature((TensorSpec("x\ud800", Datatype.FP16, (2,)),), (TensorSpec("y", _FP32, ()),)),
    "nothing-in": Signature((), (TensorSpec("y", _FP32, ()),)),
    "sequence": Signature(
        (TensorSpec("x", _FP32, (1,)),), (TensorSpec("y", _FP32, (1,)),), 8, obstacles=("it keeps state",)
    ),
}

CONTRACTS: dict[str, Contract] = {model: derive(model, found) for model, found in SIGNATURES.items()}

TYPED = {model: contract for model, contract in CONTRACTS.items() if contract.typed}
UNARY = {model: contract for model, contract in CONTRACTS.items() if contract.unary}

GOLDEN = ("iris", "matrix", "odd-names", "image", "two-dynamic", "optional", "streams", "untyped")
