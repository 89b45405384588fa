"""YAML with the line of every field kept, for messages that say where; used by `rollout.spec_file`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

_WORD = "tag:yaml.org,2002:str"

Path = tuple[str | int, ...]
"""Where a field is: keys and list positions from the top."""


class YamlError(ValueError):
    """The text is not YAML that can be read; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """The value, and the line (from 1) where each path's key (or list item) stands."""

    value: Any = None
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """The line of the nearest known place at or above the path; 0 when nothing is known."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def read(text: str) -> Document:
    """Raises `YamlError` for text that does not parse, a key given twice, or a key that is not a word."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlError(line, error.problem or str(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlError(0, str(error)) from error
    if node is None:
        return Document()
    lines: dict[Path, int] = {}
    for path, line in _places(node, (), frozenset()):
        if path in lines:
            raise YamlError(line, f"{'.'.join(map(str, path))} is given twice (first on line {lines[path]})")
        lines[path] = line
    return Document(value, lines)


def _places(node: yaml.Node, path: Path, above: frozenset[int]) -> Iterator[tuple[Path, int]]:
    if id(node) in above:
        raise YamlError(node.start_mark.line + 1, "an alias refers to what contains it")
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _WORD:
                raise YamlError(key.start_mark.line + 1, "a key must be a word")
            yield (*path, key.value), key.start_mark.line + 1
            yield from _places(child, (*path, key.value), above)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield (*path, index), child.start_mark.line + 1
            yield from _places(child, (*path, index), above)
