# SPDX-License-Identifier: Apache-2.0
"""The server that most tests of this folder ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.web.served import Fixture


@pytest.fixture
def web() -> Iterator[Fixture]:
    made = Fixture()
    yield made
    made.server.close()
