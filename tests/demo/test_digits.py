"""The demo's models are as good, and as bad, as its plot says, and their ONNX files say what scikit-learn says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from loadtest.demo import digits
from loadtest.demo.digits import Digits, Version
from loadtest.examples import read_examples

QUIET = onnxruntime.SessionOptions()
QUIET.log_severity_level = 4


@pytest.fixture(scope="module")
def data() -> Digits:
    return digits.load()


@pytest.fixture(scope="module")
def accuracies() -> dict[Version, float]:
    return {}


@pytest.fixture(scope="module")
def models(
    data: Digits, accuracies: dict[Version, float], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[Version, Path]:
    return digits.write_models(tmp_path_factory.mktemp("models"), data, accuracies.__setitem__)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, QUIET, providers=["CPUExecutionProvider"])


def test_the_versions_are_as_accurate_as_the_plot_needs(
    models: Mapping[Version, Path], accuracies: dict[Version, float]
) -> None:
    assert 0.80 < accuracies[Version.FIRST] < 0.92
    assert accuracies[Version.BETTER] > 0.96
    assert accuracies[Version.SHUFFLED] < 0.2
    assert accuracies[Version.FAULTY] == accuracies[Version.BETTER]


@pytest.mark.parametrize("version", [Version.FIRST, Version.BETTER, Version.SHUFFLED])
def test_the_onnx_file_answers_what_scikit_learn_answers(
    version: Version, data: Digits, models: Mapping[Version, Path]
) -> None:
    labels, probabilities = session(models[version]).run(None, {"pixels": data.test_images})
    expected = digits.train(version, data).predict_proba(data.test_images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    # Where two classes are all but equal, float32 may break the tie the other way.
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], expected[clear].argmax(axis=1))


def test_every_version_has_the_same_signature(models: Mapping[Version, Path]) -> None:
    signatures = set()
    for path in models.values():
        model = session(path)
        tensors = [*model.get_inputs(), *model.get_outputs()]
        signatures.add(tuple((t.name, t.type, tuple(t.shape[1:])) for t in tensors))
    assert signatures == {
        (
            ("pixels", "tensor(float)", (64,)),
            ("label", "tensor(int64)", ()),
            ("probabilities", "tensor(float)", (10,)),
        )
    }


def test_version_4_fails_on_its_inputs_and_on_no_others(data: Digits, models: Mapping[Version, Path]) -> None:
    faulty, sound = session(models[Version.FAULTY]), session(models[Version.BETTER])
    breaking = digits.breaks_faulty(data.test_images)
    assert 0.08 < breaking.mean() < 0.25
    for image in data.test_images[breaking]:
        with pytest.raises(InvalidArgument, match="out of data bounds"):
            faulty.run(None, {"pixels": image[np.newaxis]})
    fine = data.test_images[~breaking]
    for ours, theirs in zip(faulty.run(None, {"pixels": fine}), sound.run(None, {"pixels": fine}), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_version_4_passes_a_check_on_made_up_input(models: Mapping[Version, Path]) -> None:
    """Otherwise it would be refused before any user met it, and there were nothing to roll back."""
    for value in (0.0, 0.5, 1.0):
        session(models[Version.FAULTY]).run(None, {"pixels": np.full((1, digits.PIXELS), value, np.float32)})


def test_training_twice_gives_the_same_files(data: Digits, models: Mapping[Version, Path], tmp_path: Path) -> None:
    again = digits.write_models(tmp_path, data, lambda _version, _accuracy: None)
    for version, path in models.items():
        assert onnx.load(again[version]) == onnx.load(path)


def test_the_examples_are_the_held_out_half_with_true_labels(data: Digits, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    digits.write_examples(path, data)
    examples = read_examples(path)
    assert [example.label for example in examples] == data.test_labels.tolist()
    np.testing.assert_array_equal([example.instance["pixels"] for example in examples], data.test_images)
    seen_in_training = {image.tobytes() for image in data.train_images}
    assert not any(image.tobytes() in seen_in_training for image in data.test_images)
