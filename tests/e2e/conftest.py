"""One stack for all end-to-end tests that do not kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.running import Penstock, running


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    with running(tmp_path_factory.mktemp("penstock")) as started:
        yield started
