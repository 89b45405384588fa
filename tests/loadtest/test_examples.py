"""A file of examples is either usable, or refused with the line and what was expected there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtest.examples import BadExamples, Example, read_examples

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_examples_keep_their_order_and_labels(tmp_path: Path) -> None:
    path = written(tmp_path, '{"instance": {"x": [1]}, "label": 3}\n\n{"instance": {"x": [2]}, "label": "cat"}\n')
    assert read_examples(path) == (Example({"x": [1]}, 3), Example({"x": [2]}, "cat"))


def test_the_label_may_be_unknown(tmp_path: Path) -> None:
    assert read_examples(written(tmp_path, '{"instance": {"x": [1]}}'))[0].label is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "received an empty file"),
        ('{"instance": {"x": [1]}}\n{"x"', r"examples\.jsonl:2: not JSON"),
        ('{"x": [1]}', r'examples\.jsonl:1: expected {"instance"'),
        ("[1, 2]", r'examples\.jsonl:1: expected {"instance"'),
        ('{"instance": {}}', r'examples\.jsonl:1: expected {"instance"'),
        ('{"instance": {"x": 1}, "label": true}', "label: expected an integer or a string, received True"),
        ('{"instance": {"x": 1}, "label": 1.5}', "label: expected an integer or a string, received 1.5"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadExamples, match=message):
        read_examples(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadExamples, match=r"nothing\.jsonl: cannot be read"):
        read_examples(tmp_path / "nothing.jsonl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_text_at_all_breaks_the_reader(tmp_path: Path, text: str) -> None:
    try:
        examples = read_examples(written(tmp_path, text))
    except BadExamples:
        return
    assert all(example.instance for example in examples)
