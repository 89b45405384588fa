"""Triton's error texts, cut down to what helps a person.

Triton wraps a Python model's exception in its traceback, and a failed load in the name of every file it went
through; the line that tells the reason comes last.
"""

from __future__ import annotations

import re
from typing import Final

MOST_CHARACTERS: Final = 500

_WRAPPERS: Final = (
    re.compile(r"^\[StatusCode\.[A-Z_]+\]\s*"),
    re.compile(r"^load failed for model '[^']*': version \d+ is at UNAVAILABLE state: "),
    re.compile(r"^(Internal|Invalid argument|Not found|Unavailable|Unknown|Unsupported): "),
    re.compile(r"^Failed to process the request\(s\) for model instance '[^']*', message: "),
    re.compile(r"^TritonModelException: "),
    re.compile(r"^in ensemble '[^']*', "),
)
_TRACEBACK: Final = re.compile(r"\n\s*(At:\n|Traceback \(most recent call last\))")


def short_reason(message: str) -> str:
    """The reason in Triton's message, on one line."""
    text = _TRACEBACK.split(message.strip(), maxsplit=1)[0].strip()
    stripped = True
    while stripped:
        stripped = False
        for wrapper in _WRAPPERS:
            shorter = wrapper.sub("", text)
            stripped = stripped or shorter != text
            text = shorter
    text = " ".join(text.split()).removesuffix(";").strip()
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]} ..."
    return text or "no reason given"
