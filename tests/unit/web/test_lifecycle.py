# SPDX-License-Identifier: Apache-2.0
"""POST /-/reload, as Prometheus has it. What a reload does is tests/bpf's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.web.served import Fixture


@pytest.fixture
def served() -> Iterator[Fixture]:
    made = Fixture()
    yield made
    made.server.close()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_it_reloads_and_says_so(served: Fixture, method: str) -> None:
    asked: list[str] = []
    served.state.reload = lambda: asked.append("once") or ""  # type: ignore[func-returns-value]
    status, _, body = served.ask("/-/reload", method)
    assert (status, body, asked) == (200, b"reloaded\n", ["once"])


def test_a_refusal_is_told(served: Fixture) -> None:
    served.state.reload = lambda: "config.yaml:3: limits.series: 1 is not allowed"
    assert served.ask("/-/reload", "POST")[::2] == (500, b"config.yaml:3: limits.series: 1 is not allowed\n")


def test_it_is_off_unless_it_was_switched_on(served: Fixture) -> None:
    status, _, body = served.ask("/-/reload", "POST")
    assert status == 403
    assert b"--web.enable-lifecycle" in body


def test_before_it_is_ready_there_is_nothing_to_reload(served: Fixture) -> None:
    served.state.ready, served.state.reason = False, "starting"
    assert served.ask("/-/reload", "POST")[::2] == (503, b"not ready: starting\n")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_reloads_nothing(served: Fixture, site: str) -> None:
    served.state.reload = lambda: pytest.fail("another site reloads")
    status, _, body = served.ask("/-/reload", "POST", {"Sec-Fetch-Site": site})
    assert (status, body) == (403, b"a page of another site may not ask for that\n")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_browser_may_ask_for_it_by_itself(served: Fixture, site: str) -> None:
    served.state.reload = lambda: ""
    assert served.ask("/-/reload", "POST", {"Sec-Fetch-Site": site})[0] == 200


def test_a_link_that_somebody_follows_reloads_nothing(served: Fixture) -> None:
    served.state.reload = lambda: pytest.fail("a GET reloads")
    status, headers, _ = served.ask("/-/reload")
    assert (status, headers["Allow"]) == (405, "POST, PUT")
