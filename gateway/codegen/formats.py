"""What `penstock api --format` can write."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """Values are what users write."""

    PROTO = "proto"
    OPENAPI = "openapi"
    DESCRIPTOR = "descriptor"
    CURL = "curl"
    PYTHON = "python"
    TYPESCRIPT = "typescript"
    CPP = "cpp"
    JAVA = "java"
    KOTLIN = "kotlin"
    SWIFT = "swift"
    GO = "go"
    CSHARP = "csharp"
    RUBY = "ruby"

    @property
    def single(self) -> bool:
        """Whether it is one file, which can be printed; the others are folders."""
        return self in _SINGLE


_SINGLE = frozenset({Format.PROTO, Format.OPENAPI, Format.DESCRIPTOR, Format.CURL})


class UnknownFormat(ValueError):
    """No such format; the message names those there are."""


def asked_format(name: str) -> Format:
    """Raises UnknownFormat."""
    try:
        return Format(name)
    except ValueError as error:
        raise UnknownFormat(f"no format {name!r}; expected one of {', '.join(Format)}") from error
