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
}

CONTRACTS: dict[str, Contract] = {model: derive(model, found) for model, found in SIGNATURES.items()}

GOLDEN = ("iris", "matrix", "odd-names", "image")
