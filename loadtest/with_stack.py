"""`make load`: the load tester, with a stack and a demo model of its own where no gateway answers.

    python -m loadtest.with_stack digits --rate 200 --p99 50ms

Everything after the model's name goes to the load tester. The stack is started and stopped here, on any free ports,
with the demo's models of handwritten digits under the given name: version 1 is live, its held-out images with their
labels are the inputs, and the canary scenario deploys version 2.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from loadtest.demo import digits
from loadtest.demo.children import Child, ChildFailed, choose_port, quiet_environment
from loadtest.demo.digits import Version
from loadtest.demo.place import NotInstalled, tool
from loadtest.operators import Operators
from loadtest.options import Options, parse
from loadtest.scenarios import Scenario

READY_S = 90.0
SPEC = Path(__file__).parent / "demo" / "rollout.yaml"


class NotStarted(Exception):
    """The stack or its model did not come up; the message carries what was said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The load tester's exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    if _answers(options.plan.gateway):
        return _load(given)
    print(f"No gateway answers at {options.plan.gateway}: starting one with a demo model.", flush=True)
    try:
        return _load_own(options, given)
    except (ChildFailed, NotInstalled, NotStarted) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1


def _load_own(options: Options, given: list[str]) -> int:
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="penstock-load-")))
        data_dir = folder / "data"
        running.callback(subprocess.run, [tool("penstock"), "down", "--data-dir", str(data_dir)], capture_output=True)
        port, operator_port = choose_port(0), choose_port(0)
        gateway, server = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operator_port}"
        ports = ["--port", str(port), "--operator-port", str(operator_port)]
        command = [tool("penstock"), "up", "--data-dir", str(data_dir), *ports]
        stack = running.enter_context(
            Child("penstock up", command, log=folder / "penstock-up.log", env=quiet_environment())
        )
        data = digits.load()
        models = digits.write_models(folder, data, lambda _version, _accuracy: None)
        digits.write_examples(folder / "examples.jsonl", data)
        _wait_ready(stack, server)
        deploy = [tool("penstock"), "--server", server, "deploy", str(models[Version.FIRST])]
        deployed = subprocess.run([*deploy, "--name", options.plan.model], capture_output=True, text=True, check=False)
        if deployed.returncode:
            raise NotStarted(deployed.stderr or deployed.stdout)
        more = ["--gateway", gateway, "--server", server]
        if not options.plan.inputs:
            more += ["--inputs", str(folder / "examples.jsonl")]
        plan = options.plan
        if plan.scenario is Scenario.CANARY and not plan.deploy and plan.candidate is None:
            more += ["--deploy", str(models[Version.BETTER]), *([] if plan.rollout_spec else ["--rollout", str(SPEC)])]
        return _load([*given, *more])


def _wait_ready(stack: Child, server: str) -> None:
    started = time.monotonic()
    with Operators(server) as operators:
        while not operators.ready():
            stack.check()
            if time.monotonic() - started > READY_S:
                raise NotStarted(f"penstock up was not ready in {READY_S:.0f} s:\n{stack.tail()}")
            time.sleep(0.2)


def _answers(gateway: str) -> bool:
    try:
        return httpx.get(f"{gateway}/v1/models", timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _load(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "loadtest", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
