"""Whether the pinned requirements still say what the .in files ask for. Offline; run by `make check`.

Every name in an .in file is pinned in its .txt, every pin carries a hash, no line names an index, and both files agree
on versions. `make generate` makes them anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*])?==([^\s;]+)")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(path: Path) -> set[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {normalised(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines if line and not line.startswith("-")}


def pins(path: Path, faults: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for requirement in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if match := PIN.match(requirement):
            found[normalised(match[1])] = match[2]
            if "--hash=sha256:" not in requirement:
                faults.append(f"{path.name}: {match[1]} has no hash")
        elif requirement.startswith("-") or "://" in requirement:
            faults.append(f"{path.name}: expected pins only, received {requirement.strip()!r}")
    return found


def main() -> int:
    faults: list[str] = []
    pinned = {}
    for stem in ("requirements", "requirements-dev"):
        pinned[stem] = pins(ROOT / f"{stem}.txt", faults)
        missing = sorted(asked(ROOT / f"{stem}.in") - pinned[stem].keys())
        faults += [f"{stem}.in asks for {name}, which {stem}.txt does not pin" for name in missing]
    run, dev = pinned["requirements"], pinned["requirements-dev"]
    faults += [f"{n} is pinned twice: {run[n]} and {dev[n]}" for n in sorted(run.keys() & dev) if run[n] != dev[n]]
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        print("Run `make generate` and commit what it changes.", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
