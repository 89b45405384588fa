"""What the documents say exists, exists; and what exists is in the documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.server import caller_metrics, errors, metrics, mirror_metrics
from rollout.machine import State
from rollout.spec_file import SpecFile, section_in

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOUTED = re.compile(r'"([A-Z]{2,}(?:_[A-Z]+)*)"')


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def spec_fields(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if (inner := section_in(field.annotation)) is not None:
            yield from spec_fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def shouted(pattern: str) -> set[str]:
    """All UPPER_SNAKE strings in the files that match."""
    return {word for path in ROOT.glob(pattern) for word in SHOUTED.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), f"{document.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_every_field_of_the_rollout_spec_is_documented_and_no_other() -> None:
    table = text("docs/rollout.md").split("## The spec")[1]
    assert set(re.findall(r"^\| `([a-z0-9_.]+)` \|", table, re.MULTILINE)) == set(spec_fields(SpecFile))


def test_every_state_of_a_rollout_is_documented() -> None:
    table = text("docs/rollout.md").split("## What the judge looks at")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == {state.value for state in State}


def test_every_error_reason_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"`([A-Z]{2,}(?:_[A-Z]+)*)`", text("docs/operations.md").split("## Errors")[1]))
    codes = {code.name for code in errors.Code} | {"OK", "CANCELLED", "UNKNOWN", "DATA_LOSS"}
    other_words = {"BOOL", "BYTES", "GET", "HEAD", "POST", "JSON", "DC", "DR", "DPE", "RL"}
    codes_that_are_reasons_too = {"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "INTERNAL", "UNAVAILABLE"}
    found = shouted("gateway/envoy/lua/*.lua") | shouted("gateway/server/*.py")
    assert (found - codes - other_words) | codes_that_are_reasons_too == documented


def test_every_metric_is_documented_and_no_other() -> None:
    files = (metrics, mirror_metrics, caller_metrics)
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in files)
    made = set(re.findall(r'"(penstock_[a-z_]+)"', source))
    counters = set(re.findall(r'Counter(?:MetricFamily)?\(\s*"(penstock_[a-z_]+)"', source))
    documented = set(re.findall(r"^\| `(penstock_[a-z_]+)` \|", text("docs/operations.md"), re.MULTILINE))
    assert {f"{name}_total" if name in counters else name for name in made} == documented


def test_every_decision_is_in_the_index() -> None:
    index = text("docs/decisions/README.md")
    for record in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        assert f"({record.name})" in index
        title = record.read_text(encoding="utf-8").splitlines()[0]
        assert title.startswith(f"# {int(record.name[:4])}. ")
