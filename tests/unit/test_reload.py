# SPDX-License-Identifier: Apache-2.0
"""A reload's decision: taken whole, or refused whole. What is then done is tests/bpf's affair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from hmm_exporter.config import Config, ConfigError, Filter, Limits, Log
from hmm_exporter.config_value import options
from hmm_exporter.privileged.message import Refused
from hmm_exporter.reload import Reload

GAUGES = {
    "hmm_exporter_config_last_reload_successful": set[str](),
    "hmm_exporter_config_last_reload_success_timestamp_seconds": set[str](),
}


class File:
    """A configuration that a test writes, and what was taken of it."""

    def __init__(self) -> None:
        self.config = Config()
        self.taken: list[Config] = []
        self.in_read: Callable[[], None] = lambda: None
        self.in_take: Callable[[], None] = lambda: None
        self.reload = Reload(self.config, self.read, self.take)

    def read(self) -> Config:
        self.in_read()
        return self.config

    def take(self, config: Config) -> None:
        self.in_take()
        self.taken.append(config)

    def gauge(self, name: str) -> float:
        (family,) = (each for each in self.reload.collect() if each.name == f"hmm_exporter_config_last_reload_{name}")
        value: float = family.samples[0].value
        return value


def raiser(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_the_exposition_has_the_metrics_of_the_contract_and_no_others() -> None:
    families = {family.name: family for family in File().reload.collect()}
    assert families.keys() == GAUGES.keys()
    assert all(family.type == "gauge" and family.documentation.isprintable() for family in families.values())


def test_before_the_first_reload_the_start_was_a_success() -> None:
    before = time.time()
    file = File()
    assert file.gauge("successful") == 1
    assert before <= file.gauge("success_timestamp_seconds") <= time.time()


def test_what_is_live_is_taken() -> None:
    file = File()
    file.config = Config(log=Log(level="debug"), limits=Limits(series=5000))
    assert file.reload() == ""
    assert file.taken == [file.config]


def test_only_options_that_are_marked_as_live_are_taken() -> None:
    live = {option.key for option in options() if option.rule.live}
    assert live == {
        "log.level",
        "log.format",
        "probes.exclude",
        "probes.groups",
        "limits.callers",
        "limits.series",
        "limits.idle_ttl",
        "limits.cpu",
        "series_from_zero",
    }


def test_a_change_that_takes_a_restart_refuses_all_of_the_file() -> None:
    file = File()
    file.config = Config(filter=Filter(comms=("x",)), limits=Limits(series=5000, owners=3))
    assert file.reload() == "filter.comms, limits.owners: a change needs a restart; nothing was changed"
    assert (file.taken, file.gauge("successful")) == ([], 0)


@pytest.mark.parametrize("error", [ConfigError("config.yaml:3: no"), Refused("the helper has ended")])
def test_a_refusal_keeps_the_old_one_to_compare_the_next_with(error: Exception) -> None:
    file = File()
    file.in_read = file.in_take = raiser(error)
    file.config = Config(limits=Limits(series=5000))
    success = file.gauge("success_timestamp_seconds")
    assert file.reload() == str(error)
    assert (file.gauge("successful"), file.gauge("success_timestamp_seconds")) == (0, success)
    file.in_read = file.in_take = lambda: None
    assert file.reload() == ""
    assert (file.taken, file.gauge("successful")) == ([file.config], 1)


def test_a_mistake_of_ours_is_a_refusal_too_and_its_details_are_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = File()
    file.in_take = raiser(ZeroDivisionError("secret"))
    assert file.reload() == "internal error; see the log"
    assert file.gauge("successful") == 0
    assert "please report it" in caplog.text


def test_however_often_it_is_asked_for_meanwhile_one_more_follows() -> None:
    file = File()
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(10)

    file.in_take = wait
    before = threading.active_count()
    file.reload.soon()
    assert begun.wait(10)
    for _ in range(1000):
        file.reload.soon()
    assert threading.active_count() <= before + 2
    assert file.reload() == "a reload is under way"
    go_on.set()
    while threading.active_count() > before:
        time.sleep(0.01)
    assert len(file.taken) == 2


def test_the_same_file_again_is_a_success_that_changes_nothing() -> None:
    file = File()
    file.config = replace(Config())
    assert file.reload() == ""
    assert file.taken == [Config()]
