from __future__ import annotations

import pytest

from tests.lua.scripts import Scripts


@pytest.fixture(scope="session")
def scripts() -> Scripts:
    return Scripts()
