"""`make schemathesis`: random requests made from the served `/openapi.json`, against a whole stack with several models.

Fails on any 5xx and on an answer whose status, content type or body the document does not allow. Its check that what
the document forbids is refused counts unknown headers as forbidden, which a gateway lets pass: what of a body is taken
wrongly is the question of tests/lua. The tool has an environment of its own, set up once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from adapters.signature import Datatype
from tests import models
from tests.e2e.running import Penstock, running

ENVIRONMENT = Path("build/schemathesis")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

MODELS = {
    "iris": models.classifier(),
    "matrix": models.add_one(Datatype.FP32, (2, 3)),
    "words": models.string_exclaim(),
    "sums": models.sums(),
    "scalars": models.scalars(),
    "whole": models.add_one(Datatype.INT64, (4,), batching=False),
    "flags": models.identity(Datatype.BOOL),
    "bias": models.optional_bias(),
}

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.schemathesis", description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="random requests per operation and phase (100)")
    examples: int = parser.parse_args().examples
    tool = _tool()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as penstock:
        for name, artefact in MODELS.items():
            penstock.deploy_live(name, artefact)
        return _run(tool, penstock, examples)


def _run(tool: Path, penstock: Penstock, examples: int) -> int:
    done = subprocess.run(
        [
            *(str(tool), "run", f"{penstock.url}/openapi.json"),
            *("--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(examples)),
            *("--continue-on-failure", "--seed", "1", "--warnings", "off", "--no-color"),
        ],
        check=False,
    )
    return done.returncode


def _tool() -> Path:
    tool = ENVIRONMENT / "bin" / "schemathesis"
    if not tool.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    return tool


if __name__ == "__main__":
    sys.exit(main())
