"""The bench of the load generator sends by every protocol and is answered. Nothing is timed."""

from __future__ import annotations

import pytest

from loadtest.bench.generator.__main__ import run, table
from loadtest.protocols import Protocol


@pytest.mark.nightly
def test_every_protocol_is_sent_and_answered() -> None:
    sent = run(turns=1, seconds=0.5, users=4)
    assert list(sent) == list(Protocol)
    for turns in sent.values():
        for one in turns:
            assert one.requests > 0
            assert one.failed == 0
    assert table(sent).count("\n| `") == len(Protocol)
