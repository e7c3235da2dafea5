# SPDX-License-Identifier: Apache-2.0
"""The dashboards: what is in the files, and what Prometheus answers to every query in them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from hmm_exporter.kernel.iomem import PRIVATE_NAMES
from tests.fleet.dashboards import (
    FOLDER,
    IN_LINKS,
    Json,
    Panel,
    everything_chosen,
    files,
    filled_in,
    load,
    panels,
    variables,
)
from tests.fleet.prometheus import Prometheus, Refused, Series
from tests.fleet.rules import RECORDS
from tests.fleet.simulated import FIRST, RELEASES, SECOND, Fleet
from tests.fleet.tools import run, tool

UIDS = {"hmm-fleet", "hmm-node", "hmm-process", "hmm-exporter"}
DASHBOARDS = {file.stem: load(file) for file in files()}

#: Queries that have no answer here, by panel and letter, with the reason; all others have one.
EMPTY = {
    ("hmm-exporter: Time in BPF programs", "A"): "the kernel's BPF statistics are off",
    ("hmm-exporter: Time of one run", "A"): "the kernel's BPF statistics are off",
}
#: Queries that have an answer only if something went wrong, which here it may: without their condition they always do.
SELDOM = {("hmm-exporter: Events missed by probe", "A")}
#: Labels that no series has, by release of the server.
ABSENT: dict[str, set[str]] = {"sid": set(), "bookworm": {"cluster"}}
#: Labels of processes in pods and jobs alone: the one that thrashes is in a job.
WORKLOAD = {"namespace", "pod", "slurm_job"}

each_dashboard = pytest.mark.parametrize("uid", DASHBOARDS)
each_release = pytest.mark.parametrize("release", RELEASES)


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    run(sys.executable, "-m", "dashboards.grafana.generate", tmp_path)
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert written == {file.name: file.read_text() for file in files()}, "make dashboards"


@each_dashboard
def test_grafanas_own_model_of_a_dashboard_knows_every_field(uid: str) -> None:
    plugins.register_default_plugins()
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARDS[uid]))) == DASHBOARDS[uid]


def test_a_misspelt_field_is_one_that_grafanas_model_drops() -> None:
    plugins.register_default_plugins()
    misspelt = json.loads(json.dumps(DASHBOARDS["hmm-fleet"]).replace('"noValue"', '"noValeu"'))
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(misspelt))) != misspelt


def test_uids_are_the_files_names_and_stay_because_bookmarks_have_them() -> None:
    assert set(DASHBOARDS) == UIDS
    assert all(dashboard["uid"] == uid for uid, dashboard in DASHBOARDS.items())


@each_dashboard
def test_panels_can_be_told_apart_by_id_and_by_title(uid: str) -> None:
    every = DASHBOARDS[uid]["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)


@each_dashboard
def test_every_panel_says_what_it_shows_and_in_which_unit(uid: str) -> None:
    for panel in panels(DASHBOARDS[uid]):
        assert len(panel.json["description"]) > 40, panel.name
        assert panel.json["fieldConfig"]["defaults"]["unit"], panel.name


def _without_scrape_interval(dashboard: Json) -> set[str]:
    return {
        panel.name
        for panel in panels(dashboard)
        for target in panel.targets
        if "$__rate_interval" in target["expr"] and target.get("interval") != "1m"
    }


@each_dashboard
def test_rates_are_of_four_minutes_at_least_as_a_scrape_each_minute_needs(uid: str) -> None:
    """By each query's "Min step", of which Grafana takes the fourfold. The panel's own interval changes nothing."""
    assert _without_scrape_interval(DASHBOARDS[uid]) == set()
    assert _without_scrape_interval(
        json.loads(json.dumps(DASHBOARDS[uid]).replace('"interval": "1m"', '"hide": false'))
    )


@each_dashboard
def test_panels_fill_their_rows_and_do_not_overlap(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[uid]["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) == 23
    assert len(taken) == 24 * (max(y for _, y in taken) + 1), "a hole"


@each_dashboard
def test_all_of_a_variable_matches_series_that_lack_the_label(uid: str) -> None:
    one_of = {"hmm-node": {"node"}}.get(uid, set()) | {"datasource"}
    chosen = {name: variable for name, variable in variables(DASHBOARDS[uid]).items() if name not in one_of}
    assert chosen
    for name, variable in chosen.items():
        assert variable["includeAll"], name
        assert re.fullmatch(variable["allValue"], ""), name


def test_the_detail_of_a_node_is_of_one_node() -> None:
    node = variables(DASHBOARDS["hmm-node"])["node"]
    assert not node.get("multi")
    assert not node.get("includeAll")


def _links(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("url"), str):
            yield value["url"]
        for each in value.values():
            yield from _links(each)
    elif isinstance(value, list):
        for each in value:
            yield from _links(each)


@each_dashboard
def test_links_lead_to_dashboards_that_have_the_variables_they_set(uid: str) -> None:
    here = variables(DASHBOARDS[uid])
    links = list(_links(DASHBOARDS[uid]["panels"]))
    assert links
    for link in links:
        path, _, parameters = link.partition("?")
        there = variables(DASHBOARDS[path.removeprefix("/d/")])
        kept = re.findall(r"\$\{(\w+):queryparam\}", parameters)
        assert set(kept) <= here.keys() & there.keys(), link
        assert {name for name, _ in parse_qsl(parameters) if name.startswith("var-")} <= {f"var-{it}" for it in there}
        assert "${__url_time_range}" in parameters, link
        assert "$" not in re.sub(r"\$\{\w+:queryparam\}", "", IN_LINKS.sub("", link)), link


def _too_wide(link: str) -> set[str]:
    """What the clicked row or series knows of a process, or of its pod, and the link does not say."""
    given = {name for name, value in parse_qsl(link.partition("?")[2]) if re.match(r"\$\{__(data|field)\.", value)}
    needed = {
        "var-comm": {"var-node", "var-namespace", "var-pod", "var-slurm_job"},
        "var-pod": {"var-node", "var-namespace"},
    }
    return set().union(*(others for name, others in needed.items() if name in given)) - given


@each_dashboard
def test_links_to_a_process_or_pod_lead_to_that_one_and_not_to_its_namesakes(uid: str) -> None:
    links = {link for link in _links(DASHBOARDS[uid]["panels"]) if link.startswith("/d/hmm-process")}
    assert links or uid == "hmm-exporter"
    assert {link for link in links if _too_wide(link)} == set()
    assert all(_too_wide(link.replace("var-node=", "")) == {"var-node"} for link in links if "var-comm=" in link)


@each_dashboard
def test_the_other_dashboards_are_one_click_away_with_variables_and_time(uid: str) -> None:
    (link,) = DASHBOARDS[uid]["links"]
    assert set(link["tags"]) == set(DASHBOARDS[uid]["tags"])
    assert link["includeVars"]
    assert link["keepTime"]


def _answers(fleet: Fleet, release: str, dashboard: Json) -> Iterator[tuple[Panel, Json, str, list[Series]]]:
    """Every query of a dashboard, all variables at All, over the time that was played."""
    played = f"{round(fleet.ended - fleet.started)}s"
    chosen = everything_chosen(dashboard, rate_interval=played, shown=played)
    for panel in panels(dashboard):
        for target in panel.targets:
            expression = filled_in(target["expr"], chosen)
            try:
                yield panel, target, expression, fleet.servers[release].query(expression, at=fleet.ended)
            except Refused as error:
                pytest.fail(f"{panel.name}: {error}\n{expression}")


def _unanswered(fleet: Fleet, release: str, dashboard: Json) -> dict[tuple[str, str], str]:
    return {
        (panel.name, target["refId"]): expression
        for panel, target, expression, answer in _answers(fleet, release, dashboard)
        if not answer
    }


@each_release
@each_dashboard
def test_every_query_has_an_answer_but_for_those_that_are_listed(fleet: Fleet, release: str, uid: str) -> None:
    unanswered = _unanswered(fleet, release, DASHBOARDS[uid])
    listed = {key for key in EMPTY if key[0].startswith(f"{uid}: ")}
    for key in SELDOM & unanswered.keys():
        assert fleet.servers[release].query(unanswered.pop(key).removesuffix(" > 0"), at=fleet.ended), key
    assert {key: expression for key, expression in unanswered.items() if key not in listed} == {}
    assert unanswered.keys() == listed, "listed as empty, and is not"


@each_release
def test_a_misspelt_metric_is_noticed(fleet: Fleet, release: str) -> None:
    good = json.dumps(DASHBOARDS["hmm-process"])
    bad = good.replace("hmm_process_huge_faults_total", "hmm_process_huge_fault_total")
    assert _unanswered(fleet, release, json.loads(bad)).keys() == {
        ("hmm-process: Faults on huge pages of a device", "A")
    }


@each_release
@pytest.mark.parametrize("uid", ["hmm-fleet", "hmm-exporter"])
def test_exporters_that_are_down_are_counted_and_none_at_all_is_one(fleet: Fleet, release: str, uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    (panel,) = (panel for panel in panels(dashboard) if panel.title == "Exporters down")
    chosen = everything_chosen(dashboard, "1m", "1m")
    counted = {
        node: fleet.servers[release].query(filled_in(panel.targets[0]["expr"], chosen | {"node": node}))
        for node in (".*", FIRST, "no-such-node")
    }
    assert {node: [series.value for series in answer] for node, answer in counted.items()} == {
        ".*": [0],
        FIRST: [0],
        "no-such-node": [1],
    }


@pytest.mark.parametrize("release", RELEASES)
def test_exporters_that_are_down_are_one_series_also_before_the_first_scrape(fleet: Fleet, release: str) -> None:
    """A stat shows the newest figure of each series, and would go on showing that of one that has ended."""
    (panel,) = (panel for panel in panels(DASHBOARDS["hmm-fleet"]) if panel.title == "Exporters down")
    expression = filled_in(panel.targets[0]["expr"], everything_chosen(DASHBOARDS["hmm-fleet"], "1m", "1m"))
    drawn = fleet.servers[release].query_range(expression, fleet.ended - 1800, fleet.ended, 30)
    assert len(drawn) == 1


@pytest.mark.parametrize("title", ["Worst thrash ratio", "EBUSY ratio"])
def test_what_cannot_be_measured_is_not_zero(fleet: Fleet, title: str) -> None:
    """Under hardened.conf, or where a probe is denied, the exporter is there, and its metric is not."""
    (panel,) = (panel for panel in panels(DASHBOARDS["hmm-fleet"]) if panel.title == title)
    expression = filled_in(panel.targets[0]["expr"], everything_chosen(DASHBOARDS["hmm-fleet"], "1m", "1m"))
    zero = expression.rpartition(" or 0 * ")[2]
    assert len(fleet.servers["sid"].query(expression, at=fleet.ended)) == 1
    absent = re.sub(r"hmm_\w+_total", "hmm_exporter_build_info_total", zero)
    assert len(fleet.servers["sid"].query(zero, at=fleet.ended)) == 1
    assert fleet.servers["sid"].query(absent, at=fleet.ended) == []
    assert set(re.findall(r"hmm_\w+", zero)) <= {"hmm_migration_returned_bytes_total", "hmm_range_fault_attempts_total"}


def test_one_figure_for_thrash_whichever_dashboard_is_open(fleet: Fleet) -> None:
    asked = {}
    for uid in ("hmm-fleet", "hmm-node", "hmm-process"):
        (panel,) = (panel for panel in panels(DASHBOARDS[uid]) if panel.title == "Worst thrash ratio")
        chosen = everything_chosen(DASHBOARDS[uid], "1m", "1m") | {"node": FIRST}
        (answer,) = fleet.servers["sid"].query(filled_in(panel.targets[0]["expr"], chosen), at=fleet.ended)
        asked[uid] = answer.value
    assert asked["hmm-fleet"] > 0.5, asked
    assert set(asked.values()) == {asked["hmm-fleet"]}, asked
    (table,) = (panel for panel in panels(DASHBOARDS["hmm-fleet"]) if panel.title == "Nodes")
    chosen = everything_chosen(DASHBOARDS["hmm-fleet"], "1m", "1m")
    table_answer = fleet.servers["sid"].query(filled_in(table.targets[0]["expr"], chosen), at=fleet.ended)
    by_node = {series.labels["node"]: series.value for series in table_answer}
    assert by_node[FIRST] == asked["hmm-fleet"]
    assert SECOND in by_node, "blank, where nothing thrashes"


def test_teardown_is_not_eviction_in_rules_as_in_dashboards() -> None:
    asking = [record["expr"] for record in RECORDS] + [
        target["expr"] for uid in DASHBOARDS for panel in panels(DASHBOARDS[uid]) for target in panel.targets
    ]
    evicted = [expression for expression in asking if "hmm_device_range_moved_bytes_total" in expression]
    assert len(evicted) == 4
    (left_out,) = {matcher for expression in evicted for matcher in re.findall(r'device!~"([^"]+)"', expression)}
    assert all(left_out in expression for expression in evicted)
    of_teardown = {name for name, driver in PRIVATE_NAMES.items() if driver in ("nouveau", "test_hmm")}
    assert {name for name in PRIVATE_NAMES if re.fullmatch(left_out, f"{name}-0")} == of_teardown


def _strange_labels(fleet: Fleet, release: str, dashboard: Json) -> dict[str, set[str]]:
    """Labels of a legend, or columns of a table, that no series of the answer has."""
    strange: dict[str, set[str]] = {}
    for panel, target, _, answer in _answers(fleet, release, dashboard):
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        if target.get("format") == "table":
            organize = panel.json["transformations"][1]["options"]
            wanted |= {name for name in organize["indexByName"] if not name.startswith("Value")}
        there = {label for series in answer for label in series.labels}
        if answer and (others := wanted - there - ABSENT[release] - WORKLOAD):
            strange[panel.name] = others
    return strange


@each_release
@each_dashboard
def test_legends_and_columns_name_labels_that_the_answers_have(fleet: Fleet, release: str, uid: str) -> None:
    assert _strange_labels(fleet, release, DASHBOARDS[uid]) == {}


def test_a_misspelt_label_is_noticed(fleet: Fleet) -> None:
    misspelt = json.dumps(DASHBOARDS["hmm-fleet"]).replace("by (direction)", "by (derection)")
    assert _strange_labels(fleet, "sid", json.loads(misspelt)) == {
        f"hmm-fleet: {title}": {"direction"}
        for title in ("Migration bandwidth by direction", "Huge share of what moved")
    }


def _unknown_values(server: Prometheus, dashboard: Json) -> set[tuple[str, str]]:
    """Label values that queries ask for and that do not occur: a negative matcher that misses is silent."""
    chosen = everything_chosen(dashboard, "1m", "1m")
    asked = {
        (label, value)
        for panel in panels(dashboard)
        for target in panel.targets
        for label, value in re.findall(r'(\w+)!?="([^"]*)"', filled_in(target["expr"], chosen))
    }
    return {(label, value) for label, value in asked if value not in server.get(f"label/{label}/values")}


@each_dashboard
def test_queries_ask_for_label_values_that_occur(fleet: Fleet, uid: str) -> None:
    assert _unknown_values(fleet.servers["sid"], DASHBOARDS[uid]) == set()


def test_a_misspelt_label_value_is_noticed(fleet: Fleet) -> None:
    misspelt = json.dumps(DASHBOARDS["hmm-fleet"]).replace("lock_dropped", "lock_droped")
    assert _unknown_values(fleet.servers["sid"], json.loads(misspelt)) == {("reason", "lock_droped")}


@each_release
@each_dashboard
def test_variables_offer_the_values_that_there_are(fleet: Fleet, release: str, uid: str) -> None:
    chosen = everything_chosen(DASHBOARDS[uid], "1m", "1m")
    offered = {}
    for name, variable in variables(DASHBOARDS[uid]).items():
        if name == "datasource":
            continue
        query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert query, name
        selector, label = query.groups()
        series = fleet.servers[release].series(filled_in(selector, chosen))
        offered[name] = {labels[label] for labels in series if label in labels}
    assert {name for name, values in offered.items() if not values} == offered.keys() & ABSENT[release]


def test_all_pods_includes_processes_that_are_in_none(fleet: Fleet) -> None:
    (found,) = (
        answer
        for panel, target, _, answer in _answers(fleet, "sid", DASHBOARDS["hmm-process"])
        if panel.title == "Processes" and target["refId"] == "A"
    )
    assert {bool(series.labels.get("pod")) for series in found if series.labels["node"] == FIRST} == {True, False}
    assert {bool(series.labels.get("pod")) for series in found if series.labels["node"] == SECOND} == {False}


def test_grafanas_sidecar_gets_a_config_map_for_each_dashboard() -> None:
    built = run(tool("sid", "kustomize"), "build", FOLDER).stdout
    maps = list(yaml.safe_load_all(built))
    assert [its["kind"] for its in maps] == ["ConfigMap"] * len(UIDS)
    assert all(its["metadata"]["labels"]["grafana_dashboard"] == "1" for its in maps)
    contents = {name: text for its in maps for name, text in its["data"].items()}
    assert contents == {file.name: file.read_text() for file in files()}
    # kubectl apply keeps a copy in an annotation, which may have 256 KiB.
    assert max(map(len, contents.values())) < 200 * 1024


def test_the_folder_has_nothing_else_that_looks_like_a_dashboard() -> None:
    assert {file.name for file in FOLDER.rglob("*.json")} == {f"{uid}.json" for uid in UIDS}
