"""A few thousand mutated bodies in every run: never a crash, never an unlabelled error, never a wrong acceptance.

`make fuzz` runs 100,000, some of them through the real Envoy; see tests/lua/fuzzing.
"""

from __future__ import annotations

import random

import pytest

from tests.lua.fuzzing.bodies import MODELS
from tests.lua.fuzzing.shrink import shrunk
from tests.lua.fuzzing.targets import TARGETS, Target
from tests.lua.scripts import Scripts

BODIES = 400


@pytest.mark.parametrize("which", range(len(MODELS)))
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_mutated_body_is_read_as_its_oracle_reads_it_or_refused(scripts: Scripts, target: Target, which: int) -> None:
    made = MODELS[which]
    plan = scripts.plan(made.context())
    rng = random.Random(20 + which)
    accepted = sum(target.check(scripts, made, plan, target.body(made, rng)) for _ in range(BODIES))
    assert BODIES // 20 < accepted < BODIES, "the mutations must leave some that is valid, and not all"


def test_shrinking_keeps_what_fails_and_little_else() -> None:
    body = bytes(range(200)) + b"bad" + bytes(200)
    assert shrunk(body, lambda b: b"bad" in b) == b"bad"
