"""What the tests of the checks share."""

from __future__ import annotations

import pytest

from support.qdq_net import STYLES


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return request.param
