"""Models and tensors whose names languages reserve: the generated projects still compile, in every language here.

No gateway: the projects come from the contracts alone. Each language compiles the models whose
names mean something to it; each holds every such tensor.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.codegen.formats import Format
from gateway.codegen.project import project
from gateway.contract.descriptor import proto_file_name
from gateway.contract.model import Contract
from gateway.contract.snippets import Gateway
from tests.clients.languages.programs import LANGUAGES, ROOT, build, typescript_client
from tests.clients.words import MODELS, reserved

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

Compile = Callable[[Contract, Path], None]


def written(format: Format, contract: Contract, folder: Path) -> Path:
    for name, content in project(format, contract, Gateway("gateway.example:80")).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def compile_cpp(contract: Contract, folder: Path) -> None:
    """Checked, not linked: what is generated must be right, and optimising it takes minutes."""
    written(Format.CPP, contract, folder)
    (folder / "generated").mkdir()
    plugin = shutil.which("grpc_cpp_plugin")
    proto = proto_file_name(contract)
    out = ["--cpp_out=generated", "--grpc_out=generated", f"--plugin=protoc-gen-grpc={plugin}"]
    build("protoc", "-I", "proto", *out, proto, "google/rpc/status.proto", "google/rpc/error_details.proto", cwd=folder)
    stem = f"generated/{proto.removesuffix('.proto')}"
    sources = [f"{stem}.pb.cc", f"{stem}.grpc.pb.cc", f"{contract.key}_client.cc", "example.cc"]
    build("g++", "-std=gnu++17", "-fsyntax-only", "-I.", "-Igenerated", *sources, cwd=folder)


def compile_with_script(format: Format) -> Compile:
    def compile(contract: Contract, folder: Path) -> None:
        build("sh", "debian.sh", cwd=written(format, contract, folder))

    return compile


def compile_ruby(contract: Contract, folder: Path) -> None:
    written(Format.RUBY, contract, folder)
    (folder / "generated").mkdir()
    out = ["--ruby_out=generated", "--grpc_out=generated"]
    build("grpc_tools_ruby_protoc", "-I", "proto", *out, proto_file_name(contract), cwd=folder)
    request = f"puts {contract.service}Client::Model::PredictRequest.decode_json(File.read('example.json')).to_json"
    build("ruby", "-w", "-r", f"./{contract.key}_client", "-e", request, cwd=folder)


def compile_python(contract: Contract, folder: Path) -> None:
    """mypy reads the module as its user's would, and the stubs can be imported by their names."""
    written(Format.PYTHON, contract, folder)
    (folder / "generated").mkdir()
    out = [f"--{kind}_out=generated" for kind in ("python", "pyi", "grpc_python")]
    proto = proto_file_name(contract)
    build(sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *out, proto, cwd=folder)
    # The checkout's own client is installed in place, where mypy does not look by itself.
    client = f"MYPYPATH={ROOT / 'clients/python'}"
    build("env", client, sys.executable, "-m", "mypy", "--strict", f"{contract.key}_model.py", "example.py", cwd=folder)
    stubs = f"import importlib; importlib.import_module('{contract.package}.{contract.key}_pb2_grpc')"
    build(sys.executable, "-c", stubs, cwd=folder / "generated")


COMPILERS: dict[str, tuple[Compile, tuple[str, ...]]] = {
    "cpp": (compile_cpp, ("class", "std", "linux", "model")),
    "java": (compile_with_script(Format.JAVA), ("class", "http", "example")),
    "kotlin": (compile_with_script(Format.KOTLIN), ("object", "error")),
    "go": (compile_with_script(Format.GO), ("type", "package")),
    "ruby": (compile_ruby, ("class", "module", "res2net-v3")),
    "python": (compile_python, ("import", "lambda", "error")),
}
"""How to compile, and the models whose names mean something to the language or to the client in it."""


@pytest.mark.parametrize("language", COMPILERS)
def test_the_project_compiles(language: str, tmp_path: Path) -> None:
    if language in LANGUAGES:
        LANGUAGES[language].skip_unless_possible()
    compile, models = COMPILERS[language]
    for model in models:
        compile(reserved(model), tmp_path / model)


def test_the_typescript_project_compiles(tmp_path: Path) -> None:
    LANGUAGES["node"].skip_unless_possible()
    client = typescript_client(tmp_path)
    modules: Path | None = None
    for model in ("promise", "object", "class", "call"):
        folder = written(Format.TYPESCRIPT, reserved(model), tmp_path / model)
        if modules is None:
            build("npm", "install", str(client), cwd=folder)
            modules = folder / "node_modules"
        else:
            (folder / "node_modules").symlink_to(modules)
        build("npm", "run", "generate", cwd=folder)
        build("npm", "run", "build", cwd=folder)
        build("npm", "run", "bundle", cwd=folder)


def test_the_csharp_example_names_what_protoc_generates(tmp_path: Path) -> None:
    """There is no compiler of C# here. Objective-C and PHP, for which there is no project, are generated too."""
    LANGUAGES["cpp"].skip_unless_possible()
    for model in MODELS:
        contract = reserved(model)
        folder = written(Format.CSHARP, contract, tmp_path / model)
        out = folder / "generated"
        out.mkdir()
        kinds = [f"--{kind}_out=generated" for kind in ("csharp", "php", "objc", "kotlin")]
        build("protoc", "-I", "proto", *kinds, proto_file_name(contract), cwd=folder)
        (generated,) = out.glob("*.cs")
        (namespace,) = re.findall(r"^namespace (\S+) \{$", generated.read_text(), re.MULTILINE)
        assert f"using Model = {namespace};" in (folder / "Program.cs").read_text()
