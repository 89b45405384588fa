"""What is generated for every fixture compiles: by protoc, as Python, and as TypeScript; and its messages are right.

protoc and Python are in `make test`. TypeScript is nightly (`make test-all`): its compilers come from npm, which needs
Node.js and a network; without them the test is skipped and says so.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import json_format

from gateway.contract.compare import Outcome, compare
from gateway.contract.derive import derive
from gateway.contract.descriptor import file_descriptor, message_classes, proto_file_name
from gateway.contract.examples import example_proto_json
from gateway.contract.model import Contract
from gateway.contract.proto import proto_text
from tests.contract.compiling import compile_texts, run_protoc, without_options
from tests.signatures.fixtures import FIXTURES

CONTRACTS: Mapping[str, Contract] = {name: derive(name, fixture.signature) for name, fixture in FIXTURES.items()}
TYPESCRIPT = Path(str(files("tests.signatures"))) / "typescript"
NPM_S = 240


def texts(*, annotations: bool) -> dict[str, str]:
    return {proto_file_name(c): proto_text(c, annotations=annotations) for c in CONTRACTS.values()}


def example_bytes(contract: Contract) -> bytes:
    messages = message_classes(contract)
    request = json_format.ParseDict(example_proto_json(contract), messages.request(), descriptor_pool=messages.pool)
    return bytes(request.SerializeToString(deterministic=True))


def cases() -> list[dict[str, object]]:
    """What a program in another language needs to check a module: its example, and the bytes it must become."""
    return [
        {
            "name": name,
            "module": proto_file_name(contract),
            "example": example_proto_json(contract),
            "bytes": base64.b64encode(example_bytes(contract)).decode(),
        }
        for name, contract in CONTRACTS.items()
    ]


def test_there_are_enough_and_all_of_them_are_typed() -> None:
    assert len(CONTRACTS) >= 60
    assert all(contract.unary for contract in CONTRACTS.values())


@pytest.mark.parametrize("name", FIXTURES)
def test_the_lock_takes_the_same_signature_again(name: str) -> None:
    contract, signature = CONTRACTS[name], FIXTURES[name].signature
    assert compare(contract, signature).outcome is Outcome.IDENTICAL
    assert derive(name, signature, contract) == contract


def test_protoc_makes_the_descriptors_of_the_texts(tmp_path: Path) -> None:
    compiled = compile_texts(tmp_path, texts(annotations=True))
    for contract in CONTRACTS.values():
        assert without_options(compiled[proto_file_name(contract)]) == file_descriptor(contract)


IMPORT_ALL = """
import base64, importlib, json
from google.protobuf import json_format

for case in json.load(open("cases.json")):
    module = importlib.import_module(case["module"].removesuffix(".proto").replace("/", ".") + "_pb2")
    request = json_format.ParseDict(case["example"], module.PredictRequest())
    assert request.SerializeToString(deterministic=True) == base64.b64decode(case["bytes"]), case["name"]
    print(case["name"])
"""


def test_the_python_modules_import_side_by_side_and_write_the_same_bytes(tmp_path: Path) -> None:
    compile_texts(tmp_path, texts(annotations=True))
    run_protoc(tmp_path, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *texts(annotations=True))
    (tmp_path / "cases.json").write_text(json.dumps(cases()), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(CONTRACTS)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_typescript_modules_compile_and_write_the_same_bytes(tmp_path: Path) -> None:
    for file in TYPESCRIPT.iterdir():
        shutil.copy(file, tmp_path)
    install(tmp_path)
    protos = texts(annotations=False)
    compile_texts(tmp_path, protos)
    (tmp_path / "generated").mkdir()
    plugin = tmp_path / "node_modules/.bin/protoc-gen-es"
    out = "target=ts,import_extension=js:" + str(tmp_path / "generated")
    run_protoc(tmp_path, f"--plugin=protoc-gen-es={plugin}", f"--es_out={out}", *protos)
    run_here(tmp_path, "node_modules/.bin/tsc", "--project", ".")
    described = [
        {**case, "module": "./built/" + str(case["module"]).removesuffix(".proto") + "_pb.js"} for case in cases()
    ]
    (tmp_path / "cases.json").write_text(json.dumps(described), encoding="utf-8")
    assert run_here(tmp_path, "node", "round_trip.mjs").split() == list(CONTRACTS)


def install(folder: Path) -> None:
    """The compilers, from npm. Skips the test where that cannot be done."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("TypeScript needs Node.js and npm, and there is no npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not bring the TypeScript compilers within {NPM_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm could not bring the TypeScript compilers: {done.stderr.strip()[-300:]}")


def run_here(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
