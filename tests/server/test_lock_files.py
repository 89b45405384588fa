"""Lock files: written the same every time, read back whole, refused with a reason, checked from the command line."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from adapters.signature import DYNAMIC, Datatype, Signature, TensorSpec
from gateway.cli.app import app
from gateway.contract.compare import Outcome
from gateway.contract.derive import derive
from gateway.contract.lock_file import BadLock, compare_contracts, lock_text, parse_lock
from gateway.contract.model import Contract
from tests import models

_NAMES = st.text(min_size=1, max_size=12)
_SHAPES = st.lists(st.sampled_from([DYNAMIC, 0, 1, 2, 224]), max_size=4).map(tuple)
_TENSORS = st.builds(TensorSpec, _NAMES, st.sampled_from(Datatype), _SHAPES)
_OUTPUTS = st.builds(replace, _TENSORS, labels=st.lists(st.text(max_size=5), max_size=3).map(tuple))
_INPUTS = st.builds(replace, _TENSORS, optional=st.booleans())


def _sides(tensors: st.SearchStrategy[TensorSpec]) -> st.SearchStrategy[tuple[TensorSpec, ...]]:
    return st.lists(tensors, max_size=4, unique_by=lambda tensor: tensor.name).map(tuple)


CONTRACTS = st.builds(
    lambda name, signature, major: derive(name, signature, major=major),
    st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True),
    st.builds(Signature, _sides(_INPUTS), _sides(_OUTPUTS), st.integers(0, 64), decoupled=st.booleans()),
    st.integers(1, 4),
)


@given(st.lists(CONTRACTS, max_size=4, unique_by=lambda c: (c.model, c.major)))
def test_what_is_written_is_read_back(contracts: list[Contract]) -> None:
    text = lock_text(contracts)
    assert sorted(parse_lock(text), key=str) == sorted(contracts, key=str)
    assert lock_text(parse_lock(text)) == text
    assert lock_text(reversed(contracts)) == text, "the order in which models are asked for must not make a diff"


@given(CONTRACTS)
def test_a_contract_fits_itself(contract: Contract) -> None:
    assert compare_contracts(contract, contract).outcome is Outcome.IDENTICAL


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_what_is_no_lock_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadLock, match="lock file"):
        parse_lock(text)


def _mutations() -> st.SearchStrategy[str]:
    """A good lock with one value in it replaced."""
    good = yaml.safe_load(lock_text([_digits()]))
    places: list[tuple[object, ...]] = []

    def walk(value: object, path: tuple[object, ...]) -> None:
        places.append(path)
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            walk(child, (*path, key))

    walk(good, ())
    values: st.SearchStrategy[object] = (
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just([]) | st.just({})
    )

    def with_value(path: tuple[object, ...], value: object) -> str:
        document = json.loads(json.dumps(good))
        if not path:
            return json.dumps(value)
        at = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return json.dumps(document)

    return st.builds(with_value, st.sampled_from(places), values)


def _signature(datatype: Datatype = Datatype.FP32) -> Signature:
    return Signature((TensorSpec("x", datatype, (4,)),), (TensorSpec("y", datatype, (4,)),), 64)


def _digits(datatype: Datatype = Datatype.FP32) -> Contract:
    return derive("digits", _signature(datatype))


@given(_mutations())
def test_a_damaged_lock_is_read_or_refused_and_never_a_crash(text: str) -> None:
    with contextlib.suppress(BadLock):
        for contract in parse_lock(text):
            compare_contracts(contract, contract)


def test_numbers_that_moved_are_breaking() -> None:
    (field,) = _digits().inputs
    moved = replace(_digits(), inputs=(replace(field, number=7),))
    verdict = compare_contracts(_digits(), moved)
    assert verdict.outcome is Outcome.BREAKING
    assert [str(change) for change in verdict.breaking] == [
        "inputs.x: field was `float x = 1`, is `float x = 7`: messages are misread"
    ]


def test_the_file_is_for_people() -> None:
    assert lock_text([_digits()]).splitlines()[2:13] == [
        "format: 1",
        "models:",
        "  digits:",
        "    v1:",
        "      batching: true",
        "      max_rows: 64",
        "      inputs:",
        "      - name: x",
        "        number: 1",
        "        proto_name: x",
        "        proto_type: float",
    ]
    assert "          shape: [4]" in lock_text([_digits()]).splitlines()


# penstock api check --onnx: no gateway is asked


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.yaml"
    path.write_text(lock_text([_digits(), derive("letters", _signature())]))
    return path


def _check(lock: Path, artefact: bytes, *more: str) -> tuple[int, str]:
    onnx = lock.parent / "model.onnx"
    onnx.write_bytes(artefact)
    # A gateway that does not exist: the check must not need one.
    nowhere = ["--server", "http://127.0.0.1:1", "--gateway", "http://127.0.0.1:1"]
    result = CliRunner().invoke(app, [*nowhere, "api", "check", str(lock), "--onnx", str(onnx), *more])
    return result.exit_code, result.output


def test_a_file_that_fits_the_lock_passes(lock: Path) -> None:
    status, output = _check(lock, models.add(1), "--name", "digits")
    assert (status, output.split()) == (0, ["identical", "digits"])


def test_a_file_that_breaks_the_lock_fails_with_every_field(lock: Path) -> None:
    status, output = _check(lock, models.add(1, Datatype.FP64), "--name", "digits")
    assert status == 1
    assert "breaks  inputs.x: datatype was FP32, is FP64" in output
    assert "breaks  outputs.y: datatype was FP32, is FP64" in output


def test_a_file_passes_when_an_older_major_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    path.write_text(lock_text([_digits(), derive("digits", _signature(Datatype.FP64), major=2)]))
    status, output = _check(path, models.add(1))
    assert status == 0, "it joins major 1, as a deployment would"
    assert [line.split() for line in output.splitlines() if "digits" in line] == [
        ["breaking", "digits@2"],
        ["identical", "digits"],
    ]


def test_the_model_must_be_said_when_the_lock_has_several(lock: Path) -> None:
    status, output = _check(lock, models.add(1))
    assert status == 1
    assert "--name" in output
    status, output = _check(lock, models.add(1), "--name", "nothing")
    assert status == 1
    assert "it has digits, letters" in output


def test_a_folder_of_lock_files_is_one_lock(tmp_path: Path) -> None:
    for contract in (_digits(), derive("letters", _signature())):
        (tmp_path / f"{contract.model}.yaml").write_text(lock_text([contract]))
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(models.add(1))
    arguments = ["--json", "api", "check", str(tmp_path), "--onnx", str(onnx), "--name", "letters"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (verdict,) = json.loads(result.stdout)
    assert (verdict["line"], verdict["outcome"], verdict["changes"]) == ("letters", "identical", [])
