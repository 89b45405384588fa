"""The evaluator slow, dead, frozen or without a disk for whole rollouts under load: callers notice nothing, memory is
bounded, the counters say what was lost, and the rollout ends as its spec says.

Latencies are in the report only (`python -m tests.evidence.faults`): a shared machine moves them by more.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.e2e.running import running
from tests.evidence.faults import rollouts

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(3000)]

_log = logging.getLogger(__name__)

GROWTH_MB = 64.0
"""32 copies of small requests are nothing; this is the noise of the allocator."""


async def test_callers_notice_nothing_of_an_evaluator_that_fails_for_a_whole_rollout(tmp_path: Path) -> None:
    with running(tmp_path / "data") as penstock:
        outcome = await rollouts(penstock)
    told = "\n".join(outcome.lines())
    _log.info("%s", told)
    assert not outcome.failures, told
    works, slow, dead, frozen, full, again = outcome.lived
    for lived in outcome.lived:
        assert lived.state == lived.wanted, told
        # Without evidence only the deadline ends a rollout, and then nobody met the candidate.
        assert (lived.decided == "deadline") == (lived in (dead, frozen)), told
        assert (lived.candidate in lived.met) == (lived.wanted == "promoted"), told
        assert lived.envoy_mb < works.envoy_mb + GROWTH_MB, told
        assert lived.evaluator_mb < works.evaluator_mb + GROWTH_MB, told
    for lived in (dead, frozen):
        assert lived.not_delivered > 0, told
        assert lived.unanswered > 0, told
        assert lived.missing_ticks > 0, told
    assert full.rows_dropped > 0, told
    assert (works.rows_dropped, again.rows_dropped) == (0, 0), told
    assert min(works.compared, slow.compared, full.compared, again.compared) >= 1000, told
