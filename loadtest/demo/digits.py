"""The demo's models: four versions of one classifier of handwritten digits, exported to ONNX.

All four take `pixels` FP32 [64] and give `label` INT64 and `probabilities` FP32 [10] per row, so that only what they
answer differs. The data is scikit-learn's own `load_digits`; half of it is held out and becomes the demo's traffic.

Used by `loadtest.demo.run`. Everything is seeded: the same packages give the same models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

SEED = 7
PIXELS = 64
CLASSES = 10

FEW_SAMPLES = 80
"""What v1 learns from: enough for a usable model, few enough to leave room for a better one."""

INK_PER_BIN = 35.0
"""v4 looks its correction up by the sum of an image's pixels, in bins of this size."""

INK_BINS = 10
"""Entries in v4's table. Images reach bin 10, so the darkest ones (about one in seven) look past its end."""


class Version(IntEnum):
    """The four acts of the demo."""

    FIRST = 1
    BETTER = 2
    SHUFFLED = 3
    FAULTY = 4


@dataclass(frozen=True, slots=True)
class Digits:
    """Images as float32 [n, 64] with values 0..16, and their labels as int64 [n]."""

    train_images: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


def load() -> Digits:
    """The data, split in halves with every digit equally present in both."""
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images.astype(np.float32), labels.astype(np.int64), test_size=0.5, random_state=SEED, stratify=labels
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def train(version: Version, digits: Digits) -> ClassifierMixin:
    """Fit the scikit-learn model of one version. FAULTY is fitted as BETTER is; its fault is added by `export`."""
    images, labels = digits.train_images, digits.train_labels
    if version is Version.FIRST:
        return LogisticRegression(max_iter=2000).fit(images[:FEW_SAMPLES], labels[:FEW_SAMPLES])
    if version is Version.SHUFFLED:
        labels = np.random.default_rng(SEED).permutation(labels)
    return ExtraTreesClassifier(n_estimators=60, min_samples_leaf=2, random_state=SEED).fit(images, labels)


def export(version: Version, model: ClassifierMixin) -> onnx.ModelProto:
    """The ONNX graph of a trained version, with the signature that all versions share."""
    graph: onnx.ModelProto = to_onnx(
        model,
        initial_types=[("pixels", FloatTensorType([None, PIXELS]))],
        options={id(model): {"zipmap": False}},
        target_opset=17,
    )
    graph.producer_name = "penstock demo"
    graph.doc_string = f"handwritten digits, version {int(version)}"
    if version is Version.FAULTY:
        add_short_table(graph)
    onnx.checker.check_model(graph)
    return graph


def add_short_table(model: onnx.ModelProto) -> None:
    """Give the model a bug of the kind that passes every test on light images: a lookup table that is too short.

    probabilities + table[floor(sum(pixels) / INK_PER_BIN)], the table all zeros: right wherever the entry exists,
    and an error of the runtime ("indices element out of data bounds") where it does not.
    """
    graph = model.graph
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == "probabilities":
                node.output[i] = "uncorrected"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1], np.int64), "row_axis"),
            numpy_helper.from_array(np.array(INK_PER_BIN, np.float32), "ink_per_bin"),
            numpy_helper.from_array(np.zeros((INK_BINS, 1), np.float32), "ink_correction"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceSum", ["pixels", "row_axis"], ["ink"], keepdims=0),
            helper.make_node("Div", ["ink", "ink_per_bin"], ["ink_bins"]),
            helper.make_node("Cast", ["ink_bins"], ["ink_bin"], to=TensorProto.INT64),
            helper.make_node("Gather", ["ink_correction", "ink_bin"], ["correction"], axis=0),
            helper.make_node("Add", ["uncorrected", "correction"], ["probabilities"]),
        ]
    )


def breaks_faulty(images: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which images [n, 64] make v4 fail."""
    return np.asarray(np.floor(images.sum(axis=1) / INK_PER_BIN) >= INK_BINS)


def write_models(folder: Path, digits: Digits, on_trained: Callable[[Version, float], None]) -> dict[Version, Path]:
    """Train and export every version into `folder`; `on_trained` hears of each, with its held-out accuracy (0..1)."""
    paths = {}
    for version in Version:
        model = train(version, digits)
        paths[version] = folder / f"digits-v{int(version)}.onnx"
        paths[version].write_bytes(export(version, model).SerializeToString())
        on_trained(version, float(model.score(digits.test_images, digits.test_labels)))
    return paths


def write_examples(path: Path, digits: Digits) -> None:
    """Write the held-out images as recorded examples with their true labels (`loadtest.examples`)."""
    with path.open("w", encoding="utf-8") as file:
        for pixels, label in zip(digits.test_images.tolist(), digits.test_labels.tolist(), strict=True):
            file.write(json.dumps({"instance": {"pixels": pixels}, "label": label}) + "\n")
