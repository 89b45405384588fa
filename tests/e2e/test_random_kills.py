"""A control plane that is killed again and again, at any moment of its rollouts, fails nobody and decides the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.kills import KINDS, LEASE_TTL_S, storm
from tests.e2e.running import running

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]

KILLS = 100


@pytest.mark.timeout(3000)
async def test_a_hundred_kills_under_load(tmp_path: Path) -> None:
    with running(tmp_path, lease_ttl_s=LEASE_TTL_S) as stack:
        report = await storm(stack, kills=KILLS, seed=1)
    told = "\n".join(report.lines())
    assert sum(report.met.values()) == KILLS, told
    assert len(report.met) >= 3, told
    assert report.failures == [], told
    assert report.differing == [], told
    assert report.broken == [], told
    assert 0 < report.counted <= report.answered, told
    assert report.requests > 1000, told
    assert set(report.ends) <= {(kind, state) for kind, (_, state) in KINDS.items()}, told
