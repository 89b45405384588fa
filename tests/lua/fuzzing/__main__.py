"""`make fuzz`: mutated bodies against the scripts under LuaJIT, and a share of them through the real Envoy."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from pathlib import Path

from tests.lua.fuzzing.run import Failure, fuzz, replay
from tests.lua.fuzzing.through_envoy import fuzz_envoy

ENVOY_SHARE = 20
"""One body in so many goes through Envoy, where it costs some milliseconds instead of a fraction of one."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lua.fuzzing", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="bodies in all (default: 100,000)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one; printed, so that it can be given")
    parser.add_argument(
        "--save",
        type=Path,
        default=Path("build/fuzz"),
        help="folder for bodies that fail, made small (default: build/fuzz)",
    )
    parser.add_argument("--replay", type=Path, help="a saved body: say what fails for it now")
    options = parser.parse_args(arguments)
    if options.replay:
        what = replay(Failure.load(options.replay))
        print(what or "nothing fails for this body")
        return 1 if what else 0
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"{options.count:,} bodies, seed {seed}", flush=True)
    started = time.monotonic()
    through = options.count // ENVOY_SHARE
    scripts = fuzz(options.count - through, seed, lambda line: print(line, flush=True))
    envoy = asyncio.run(fuzz_envoy(through, seed))
    for name, bodies in envoy.bodies.items():
        print(f"{name}: {bodies:,} bodies, {envoy.accepted[name]:,} accepted")
    failures = [*scripts.failures, *envoy.failures]
    total = sum(scripts.bodies.values()) + sum(envoy.bodies.values())
    print(f"{total:,} bodies in {time.monotonic() - started:.0f} s: {len(failures)} failures")
    return _report(failures, options.save, seed)


def _report(failures: list[Failure], folder: Path, seed: int) -> int:
    for failure in failures:
        print(f"\n{failure.target}, model {failure.model}: {failure.what[:500]}\n  {failure.body!r}"[:1500])
        print(f"  saved as {failure.save(folder)}; again with --seed {seed}, or --replay that file")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
