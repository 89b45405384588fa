"""One way to ask a model from every language: the generated example of each, built once and run per question.

Each program prints the same lines ("version 1", "request ...", "reason WRONG_COUNT", "detail field ..."), so that one
set of tests holds for all. `missing` says what this machine lacks for a language.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from penstock_client import Answer, Client, PenstockError
from penstock_client.grpc_client import GrpcClient

from tests.e2e.running import Penstock

ROOT = Path(__file__).parents[3]
MODEL = "asked"
ROW = [1.0, 2.0, 3.0, 4.0]
BUILD_S = 300.0


@dataclass(frozen=True)
class Question:
    """One prediction. `label`: feedback for it. `address`: another host:port than the gateway's, for programs.

    The timeout is long: what the model still works on for a caller who gave up may come first, on a busy machine.
    """

    x: list[float] = field(default_factory=lambda: list(ROW))
    timeout_ms: int | None = 60_000
    version: int | None = None
    user: str | None = None
    label: Any = None
    address: str | None = None

    @property
    def request(self) -> dict[str, Any]:
        return {"instances": [{"x": self.x}]}

    @property
    def environment(self) -> dict[str, str]:
        found = {
            "PENSTOCK_ADDRESS": self.address,
            "PENSTOCK_TIMEOUT_MS": self.timeout_ms,
            "PENSTOCK_VERSION": self.version,
            "PENSTOCK_USER": self.user,
            "PENSTOCK_LABEL": None if self.label is None else json.dumps(self.label),
        }
        return {name: str(value) for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Said:
    """What a program printed: first word -> the rest of its line; details by their names."""

    lines: Mapping[str, str]
    details: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> Said:
        pairs = [line.partition(" ")[::2] for line in text.splitlines() if line]
        details = dict(rest.partition(" ")[::2] for first, rest in pairs if first == "detail")
        return cls({first: rest for first, rest in pairs if first != "detail"}, details)

    @property
    def y(self) -> list[float]:
        values: list[float] = json.loads(self.lines["answer"])["predictions"][0]["y"]
        return values


Ask = Callable[[Question], Said]


def _call(question: Question) -> dict[str, Any]:
    timeout_s = None if question.timeout_ms is None else question.timeout_ms / 1000
    return {"version": question.version, "user_id": question.user, "timeout_s": timeout_s}


def _python(client: Client | GrpcClient) -> Ask:
    def ask(question: Question) -> Said:
        try:
            answer: Answer = client.predict(MODEL, {"x": question.x}, **_call(question))
        except PenstockError as error:
            said = {"code": str(int(error.code)), "reason": error.reason, "message": error.message}
            return Said(said, error.metadata)
        lines = {"version": str(answer.version), "request": answer.request_id}
        lines["answer"] = json.dumps({"predictions": list(answer.rows)})
        if question.label is not None:
            client.feedback(answer.request_id, label=question.label)
            lines["feedback"] = "given"
        return Said(lines, {})

    return ask


def _program(command: list[str], folder: Path, penstock: Penstock) -> Ask:
    """Exit status 0 for an answer, 1 for an error of the gateway; anything else is a broken program."""

    def ask(question: Question) -> Said:
        given = folder / "question.json"
        given.write_text(json.dumps(question.request))
        environment = {**os.environ, "PENSTOCK_ADDRESS": penstock.authority, **question.environment}
        done = subprocess.run(
            [*command, given.name],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = Said.of(done.stdout)
        assert done.returncode == ("code" in said.lines), done.stdout + done.stderr
        return said

    return ask


def build(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def _exported(format: str, penstock: Penstock, folder: Path) -> Path:
    """The project, as the command line writes it."""
    written = penstock.cli("api", MODEL, "--format", format, "-o", str(folder / format))
    assert written.returncode == 0, written.stderr
    return folder / format


@contextmanager
def python_http(penstock: Penstock, _: Path) -> Iterator[Ask]:
    with Client(penstock.url) as client:
        yield _python(client)


@contextmanager
def python_grpc(penstock: Penstock, _: Path) -> Iterator[Ask]:
    with GrpcClient(penstock.authority) as client:
        yield _python(client)


@contextmanager
def cpp(penstock: Penstock, folder: Path) -> Iterator[Ask]:
    project = _exported("cpp", penstock, folder)
    build("cmake", "-B", "build", cwd=project)
    build("cmake", "--build", "build", cwd=project)
    yield _program(["build/example"], project, penstock)


@contextmanager
def _from_debian(language: str, program: str, penstock: Penstock, folder: Path) -> Iterator[Ask]:
    """Of projects with a script that builds them from Debian's packages."""
    project = _exported(language, penstock, folder)
    build("sh", "debian.sh", cwd=project)
    yield _program([program], project, penstock)


java = partial(_from_debian, "java", "build/run")
kotlin = partial(_from_debian, "kotlin", "build/run")
go = partial(_from_debian, "go", "build/example")


@contextmanager
def ruby(penstock: Penstock, folder: Path) -> Iterator[Ask]:
    project = _exported("ruby", penstock, folder)
    (proto,) = (path.relative_to(project / "proto") for path in project.glob("proto/penstock/**/*.proto"))
    (project / "generated").mkdir()
    build(
        *("grpc_tools_ruby_protoc", "-I", "proto", "--ruby_out=generated", "--grpc_out=generated", str(proto)),
        cwd=project,
    )
    yield _program(["ruby", "example.rb"], project, penstock)


@contextmanager
def node(penstock: Penstock, folder: Path) -> Iterator[Ask]:
    project = typescript_project(penstock, folder)
    build("npm", "run", "build", cwd=project)
    yield _program(["node", "dist/example.js"], project, penstock)


@contextmanager
def chromium(penstock: Penstock, folder: Path) -> Iterator[Ask]:
    project = typescript_project(penstock, folder)
    build("npm", "run", "bundle", cwd=project)
    with _Page(project / "dist/browser.js", penstock.url) as page:
        yield page.ask


def typescript_project(penstock: Penstock, folder: Path) -> Path:
    """As its README says, with the client packed from this checkout."""
    project = _exported("typescript", penstock, folder)
    build("npm", "install", str(typescript_client(folder)), cwd=project)
    build("npm", "run", "generate", cwd=project)
    return project


def typescript_client(folder: Path) -> Path:
    """The archive that npm makes of this checkout's client."""
    source = folder / "penstock-client"
    shutil.copytree(ROOT / "clients/typescript", source, ignore=shutil.ignore_patterns("node_modules", "dist"))
    build("npm", "ci", cwd=source)
    build("npm", "pack", "--pack-destination", str(folder), cwd=source)
    return folder / "penstock-client-0.1.0.tgz"


_HTML = b"""<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
import "/browser.js";
for (;;) {
  const question = await (await fetch("/question")).json();
  if (question === null) break;
  const { url, ...asked } = question;
  let text;
  try { text = (await askFromPage(url, asked)).lines.join("\\n"); } catch (error) { text = `broken ${error}`; }
  await fetch("/answer", { method: "POST", body: text });
}
</script>"""


class _Page:
    """A page in headless Chromium, from another origin than the gateway's, that asks what it is given."""

    def __init__(self, script: Path, gateway: str) -> None:
        self._gateway = gateway
        self._question: Any = None
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        self._text = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(script.read_bytes()))
        self._serving = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> _Page:
        self._serving.start()
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += " --disable-component-update --disable-sync --disable-dev-shm-usage"
        self._browser = subprocess.Popen(
            ["chromium", *flags.split(), "--remote-debugging-port=0", f"http://127.0.0.1:{self._server.server_port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.terminate()
        self._browser.wait(30)
        self._question = None
        self._asked.release()
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()

    def ask(self, question: Question) -> Said:
        call = {"timeoutMs": question.timeout_ms, "version": question.version, "userId": question.user}
        given = {name: value for name, value in {**call, "label": question.label}.items() if value is not None}
        self._question = {"url": self._gateway, "request": question.request, **given}
        self._asked.release()
        assert self._answered.acquire(timeout=120), "the page gave no answer"
        assert not self._text.startswith("broken"), self._text
        return Said.of(self._text)

    def _handler(self, script: bytes) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                match self.path:
                    case "/":
                        self._reply("text/html", _HTML)
                    case "/browser.js":
                        self._reply("text/javascript", script)
                    case _:
                        page._asked.acquire()
                        self._reply("application/json", json.dumps(page._question).encode())

            def do_POST(self) -> None:
                page._text = self.rfile.read(int(self.headers["content-length"])).decode()
                self._reply("text/plain", b"")
                page._answered.release()

            def _reply(self, kind: str, content: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:
                    # The browser was ended while it waited for a question.
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing: the tests look at the answers."""

        return Handler


@dataclass(frozen=True)
class Language:
    """`needs`: programs that must be there; `packages`: what brings them on Debian."""

    program: Callable[[Penstock, Path], Any]
    needs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    packages: str = ""

    def skip_unless_possible(self) -> None:
        lacking = [name for name in self.needs if shutil.which(name) is None]
        lacking += [name for name in self.files if not Path(name).exists()]
        if lacking:
            pytest.skip(f"missing: {', '.join(lacking)}. Debian, Ubuntu: apt-get install {self.packages}")


_JAVA_JARS = ("grpc-netty", "netty-all", "protobuf-util", "proto-google-common-protos", "geronimo-annotation-1.3-spec")
_JAVA_PACKAGES = (
    "openjdk-17-jdk protobuf-compiler protobuf-compiler-grpc-java-plugin libgrpc-java libprotobuf-java "
    "libgoogle-common-protos-java libnetty-java libgoogle-gson-java libperfmark-java "
    "libgeronimo-annotation-1.3-spec-java"
)


def _jars(*names: str) -> tuple[str, ...]:
    return tuple(f"/usr/share/java/{name}.jar" for name in names)


LANGUAGES: Mapping[str, Language] = {
    "python-http": Language(python_http),
    "python-grpc": Language(python_grpc),
    "cpp": Language(
        cpp,
        ("cmake", "g++", "pkg-config", "protoc", "grpc_cpp_plugin"),
        ("/usr/include/grpcpp/grpcpp.h",),
        "cmake g++ pkg-config libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc libcurl4-openssl-dev",
    ),
    "java": Language(java, ("javac", "protoc", "grpc_java_plugin"), _jars(*_JAVA_JARS), _JAVA_PACKAGES),
    "kotlin": Language(
        kotlin,
        ("kotlinc", "javac", "protoc", "grpc_java_plugin"),
        _jars(*_JAVA_JARS, "kotlinx-coroutines-core", "atomicfu"),
        f"kotlin libkotlinx-coroutines-java libkotlinx-atomicfu-java {_JAVA_PACKAGES}",
    ),
    "go": Language(
        go,
        ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"),
        tuple(
            f"/usr/share/gocode/src/google.golang.org/{name}"
            for name in ("grpc/clientconn.go", "genproto/googleapis/rpc/errdetails", "protobuf/encoding/protojson")
        ),
        "golang-go protobuf-compiler protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev "
        "golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev golang-google-protobuf-dev",
    ),
    "ruby": Language(
        ruby,
        ("ruby", "grpc_tools_ruby_protoc"),
        ("/usr/share/doc/ruby-grpc", "/usr/share/doc/ruby-googleapis-common-protos-types"),
        "ruby ruby-grpc ruby-grpc-tools ruby-googleapis-common-protos-types",
    ),
    "node": Language(node, ("node", "npm"), (), "nodejs npm (Node 20 or later)"),
    "chromium": Language(chromium, ("node", "npm", "chromium"), (), "nodejs npm chromium (Node 20 or later)"),
}
