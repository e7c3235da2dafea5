# SPDX-License-Identifier: Apache-2.0
"""How the exporter is: what it says at all times, and what it calls a problem."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.catalog import tables
from hmm_exporter.metrics.books import IN_MIGRATION
from hmm_exporter.report.snapshot import snapshot
from hmm_exporter.web.page.figures import Figures
from hmm_exporter.web.page.health import Fact, facts
from tests.unit.web.page.viewer import Viewer

# As the kernel writes it, shortened.
STATUS = """\
Name:	hmm-exporter
CapInh:	0000000000000000
CapPrm:	{permitted}
CapEff:	{permitted}
CapBnd:	0000000000000000
CapAmb:	0000000000000000
NoNewPrivs:	{no_new}
Seccomp:	{seccomp}
"""


def gauge(name: str, value: float) -> Family:
    return GaugeMetricFamily(name, "a gauge", value=value)


def fact(title: str, *families: Family, before: tuple[Family, ...] = (), seconds: float = 0) -> Fact:
    now = snapshot(families)
    (found,) = (each for each in facts(Figures(now, now.since(snapshot(before)), seconds)) if each.title == title)
    return found


def test_balanced_books_are_told_and_others_are_a_problem(viewer: Viewer) -> None:
    assert "balanced; 0 in flight, 0 abandoned" in viewer.look().texts
    viewer.world.bpf.enter(1, IN_MIGRATION, 1 << 62)
    viewer.migrate(1)
    viewer.world.bpf.book(tables.LOSS, (0,), events=5)
    viewer.world.bpf.leave(1)
    page = viewer.look(after=10)
    assert "not balanced; 0 in flight, 5 abandoned" in page.texts
    assert "the books of migrations do not balance" in page.texts
    assert "Ready, but" in page.texts


def test_what_was_missed_once_is_told_and_what_is_missed_now_is_a_problem() -> None:
    def missed(count: int) -> Family:
        family = CounterMetricFamily("hmm_exporter_probe_missed", "missed", labels=("probe",))
        family.add_metric(("hmm_range_fault",), count)
        return family

    still = fact("Events missed", missed(10), before=(missed(10),), seconds=10)
    assert still == Fact("Events missed", "hmm_range_fault 10")
    now = fact("Events missed", missed(30), before=(missed(10),), seconds=10)
    assert now.problem == "2/s events are missed by hmm_range_fault"
    assert fact("Events missed", missed(0)).text == "none"


def test_a_map_or_the_series_that_are_nearly_full_are_a_problem() -> None:
    def maps(name: str, *values: int) -> Family:
        family = GaugeMetricFamily(f"hmm_exporter_map_{name}", "rows", labels=("map",))
        for map_name, value in zip(("owner", "process"), values):
            family.add_metric((map_name,), value)
        return family

    fullest = fact("Fullest BPF maps", maps("entries", 2, 61), maps("capacity", 16, 64))
    assert fullest == Fact("Fullest BPF maps", "process 95\xa0%, owner 12\xa0%", "nearly full: process")
    series = fact("Series", gauge("hmm_exporter_series", 950), gauge("hmm_exporter_series_limit", 1000))
    assert series == Fact("Series", "950 of 1,000", "nearly as many series as there may be")


def test_the_cpu_of_the_probes_is_there_where_it_is_known() -> None:
    def spent(seconds: float) -> Family:
        return CounterMetricFamily("hmm_exporter_bpf_cpu_seconds", "estimated", value=seconds)

    found = fact("CPU of the probes", spent(3.5), before=(spent(3.4),), seconds=10)
    assert found.text == "about 1.0\xa0% of a CPU"


def test_a_configuration_that_was_refused_is_a_problem() -> None:
    def reload(successful: int) -> Fact:
        at = gauge("hmm_exporter_config_last_reload_success_timestamp_seconds", 1_700_000_000)
        return fact("Configuration", gauge("hmm_exporter_config_last_reload_successful", successful), at)

    assert reload(1) == Fact("Configuration", "read 2023-11-14 22:13:20 UTC")
    assert reload(0).problem == "the configuration was refused when read again; see the log"


def test_the_rights_are_those_that_the_kernel_tells(tmp_path: Path) -> None:
    def rights(permitted: str, no_new: int, seccomp: int) -> str:
        path = tmp_path / "status"
        path.write_text(STATUS.format(permitted=permitted, no_new=no_new, seccomp=seccomp))
        empty = snapshot(())
        return next(each.text for each in facts(Figures(empty, empty, 0), path) if each.title == "Rights")

    assert rights("0" * 16, 1, 2) == "no capability in any set; no_new_privs; a seccomp filter"
    assert rights("000000c400000000", 0, 0) == (
        "capabilities: CapEff c400000000, CapPrm c400000000; may gain privileges by exec; no seccomp filter"
    )
    assert rights("nonsense", 0, 0) == "/proc/self/status does not tell"


def test_without_any_family_there_are_the_rights_alone(tmp_path: Path) -> None:
    empty = snapshot(())
    found = facts(Figures(empty, empty, 0), tmp_path / "none")
    assert found == [Fact("Rights", "/proc/self/status does not tell")]
