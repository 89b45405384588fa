"""Generated text is what was last looked at."""

from __future__ import annotations

import pytest

from tests.contract.generated import FOLDER, golden_files

FILES = golden_files()


@pytest.mark.parametrize("name", FILES)
def test_generated_text_is_as_it_was_reviewed(name: str) -> None:
    golden = (FOLDER / name).read_text(encoding="utf-8")
    assert FILES[name] == golden, "run `make generate` and look at what changed"


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FILES)
