# SPDX-License-Identifier: Apache-2.0
"""The configuration: what a file may say, and what its writer is told otherwise."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, ConfigError, Limits, Seconds
from hmm_exporter.config_file import load
from hmm_exporter.config_value import options, override
from hmm_exporter.web import web_config

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def complaint(path: Path | str) -> str:
    """What loading *path* says, without its directory; one line, always."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    text = str(caught.value)
    assert text.isprintable(), f"not one plain line: {text!r}"
    return text.replace(f"{os.path.dirname(path)}/", "", 1)


def test_the_defaults_are_those_of_the_design() -> None:
    config = Config()
    assert config.web.listen_addresses == (":10466",)
    assert config.web.telemetry_path == "/metrics"
    assert (config.log.level, config.log.format) == ("info", "logfmt")
    assert (config.filter.tgids, config.filter.comms, config.probes.exclude) == ((), (), ())
    assert dataclasses.astuple(config.limits) == (16, 16, 64, 20, 10000, 3600.0, 0.01)
    assert dataclasses.astuple(config.maps) == (8192, 65536, 1024, 1024)
    assert config.histograms.migration_phases is False
    assert (config.loader.python, config.loader.timeout) == ("/usr/bin/python3", 60.0)
    assert config.thrash_window == 10.0
    assert config.simulator is None


def test_groups_are_the_catalogues() -> None:
    assert Config().probes.groups == {group.name: group.default for group in GROUPS}


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "{}", "web:\nlimits:\n", "\ufeff"])
def test_a_file_that_sets_nothing_is_all_defaults(write: Write, text: str) -> None:
    assert load(write(text)) == Config()


def test_the_example_is_exactly_the_defaults() -> None:
    assert load(EXAMPLE) == Config()


def test_the_example_sets_every_option() -> None:
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for option in options():
        section, _, name = option.key.rpartition(".")
        assert name in (tree[section] if section else tree), option.key
    assert set(tree["probes"]["groups"]) == {group.name for group in GROUPS}


def test_the_example_says_above_each_option_what_it_is_for_and_what_is_allowed() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for option in options():
        section, _, name = option.key.rpartition(".")
        start = lines.index(f"{section}:") if section else 0
        at = next(i for i in range(start, len(lines)) if lines[i].lstrip().startswith(f"{name}:"))
        comments = [line.lstrip(" #") for line in lines[max(at - 2, 0) : at]]
        assert option.rule.help in comments, option.key
        if not isinstance(option.default, (bool, dict)):
            assert comments[-1] == option.allowed, option.key
    for group in GROUPS:
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{group.name}:"))
        assert lines[at - 1].strip() == f"# {group.help}"


def test_what_a_file_sets_is_set_and_the_rest_stays(write: Write) -> None:
    config = load(
        write(
            """
            web: {listen_addresses: ["127.0.0.1:9", "[::1]:10466"], telemetry_path: /hmm}
            log: {level: debug, format: json}
            filter: {tgids: [1, 4194304], comms: [python3, "a b"]}
            probes: {exclude: [hmm_range_fault], groups: {per_page: true}}
            limits: {processes: 4096, idle_ttl: 1h30m}
            simulator: ./simulator
            """
        )
    )
    assert config.web.listen_addresses == ("127.0.0.1:9", "[::1]:10466")
    assert config.web.telemetry_path == "/hmm"
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert config.filter.tgids == (1, 4194304)
    assert config.filter.comms == ("python3", "a b")
    assert config.probes.exclude == ("hmm_range_fault",)
    assert config.probes.groups == {**Config().probes.groups, "per_page": True}
    assert config.limits == Limits(processes=4096, idle_ttl=Seconds(5400.0))
    assert config.simulator == "./simulator"
    assert config.maps == Config().maps


def test_an_alias_means_what_its_anchor_does(write: Write) -> None:
    config = load(write("limits: {owners: &n 7, drivers: *n}"))
    assert (config.limits.owners, config.limits.drivers) == (7, 7)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("60s", 60), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1d", 86400)],
        *[("1w", 604800), ("30d", 2592000), ("90000ms", 90), ('"2h"', 7200)],
        *[("0", 0), ("0s", 0), ("'0'", 0)],
    ],
)
def test_durations_are_written_as_in_prometheus(write: Write, text: str, seconds: float) -> None:
    assert load(write(f"limits: {{idle_ttl: {text}}}")).limits.idle_ttl == seconds


DURATION = "a duration from 1m to 30d, as 90s or 1h30m, or 0 for never"


@pytest.mark.parametrize("text", ["1:30", "3600", "1.5h", "-1h", "1m1h", "h", "59s", "31d", "1 h", f"{'9' * 400}s"])
def test_other_durations_are_not_allowed(write: Write, text: str) -> None:
    said = complaint(write(f"limits:\n  idle_ttl: {text}\n"))
    assert said.startswith("config.yaml:2: limits.idle_ttl: ")
    assert said.endswith(f" is not allowed: {DURATION}")


@pytest.mark.parametrize(
    ("text", "part"),
    [("1%", 0.01), ("0.5%", 0.005), ("'12.5%'", 0.125), ("1000%", 10), ("0.01%", 0.0001), ("0", 0), ("0%", 0)],
)
def test_a_part_of_a_cpu_is_a_percentage(write: Write, text: str, part: float) -> None:
    assert load(write(f"limits: {{cpu: {text}}}")).limits.cpu == pytest.approx(part)


@pytest.mark.parametrize("text", ["1", "0.01", "1 %", "-1%", "1e1%", ".5%", "5.%", "0.009%", "1001%", "0.0%%", "1,5%"])
def test_other_parts_of_a_cpu_are_not_allowed(write: Write, text: str) -> None:
    said = complaint(write(f"limits:\n  cpu: {text}\n"))
    assert said.startswith("config.yaml:2: limits.cpu: ")
    assert said.endswith(" is not allowed: a percentage from 0.01% to 1000%, as 1% or 0.5%, or 0 for never")


def test_an_error_says_the_file_the_line_the_key_the_value_and_what_is_allowed(
    write: Write,
) -> None:
    path = write("\nweb:\n  telemetry_path: /metrics\n\nlimits:\n\n  processes: -3\n")
    assert complaint(path) == ("config.yaml:7: limits.processes: -3 is not allowed: a whole number from 1 to 4096")


ROOT = (
    "web, log, filter, probes, limits, maps, histograms, kubernetes, slurm, host, loader, thrash_window,"
    " series_from_zero, simulator"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Unknown keys.
        ("a: 1", f"1: a: unknown key: one of {ROOT}"),
        ("\nlimit: 1", f"2: limit: unknown key (did you mean limits?): one of {ROOT}"),
        ("yes: 1", f"1: yes: unknown key: one of {ROOT}"),
        ("[a]: 1", f"1: a list: unknown key: one of {ROOT}"),
        ("<<: {web: }", f"1: <<: unknown key: one of {ROOT}"),
        (
            "maps:\n  thread: 64",
            "2: maps.thread: unknown key (did you mean threads?): one of threads, arrivals, stacks, failures",
        ),
        (
            "probes: {groups: {per_pages: true}}",
            "1: probes.groups.per_pages: unknown key (did you mean per_page?): one of "
            + ", ".join(group.name for group in GROUPS),
        ),
        # Duplicates.
        ("web:\nlog:\nweb:\n", "3: web: given twice, first on line 1"),
        ("log:\n  level: info\n  level: info", "3: log.level: given twice, first on line 2"),
        ("filter: {comms: [a, b, a]}", "1: filter.comms[2]: a is given twice"),
        # Wrong types.
        (
            "web: 1",
            "1: web: 1 is not allowed: a mapping with keys of listen_addresses, telemetry_path, systemd_socket,"
            " enable_lifecycle, config_file",
        ),
        ("- web", f"1: a list is not allowed: a mapping with keys of {ROOT}"),
        ("web", f"1: web is not allowed: a mapping with keys of {ROOT}"),
        (
            "limits: {owners: 010}",
            "1: limits.owners: 010 is not allowed: a whole number from 1 to 256, in plain decimal digits",
        ),
        (
            "limits: {owners: 1:30}",
            "1: limits.owners: 1:30 is not allowed: a whole number from 1 to 256, in plain decimal digits",
        ),
        (
            "limits: {owners: '16'}",
            '1: limits.owners: "16" is not allowed: a whole number from 1 to 256, without quotes',
        ),
        (
            "limits: {owners: 1.5}",
            "1: limits.owners: 1.5 is not allowed: a whole number from 1 to 256",
        ),
        (
            "limits: {owners: []}",
            "1: limits.owners: a list is not allowed: a whole number from 1 to 256",
        ),
        (
            "limits: {owners: }",
            "1: limits.owners: an empty value is not allowed: a whole number from 1 to 256",
        ),
        (
            "histograms: {migration_phases: yes}",
            "1: histograms.migration_phases: yes is not allowed: true or false",
        ),
        (
            "filter: {comms: [no]}",
            "1: filter.comms[0]: no is not allowed: a command name of 1 to 15 bytes, as in"
            " /proc/PID/comm; YAML takes it for a value of type bool, so put it in quotes",
        ),
        (
            "simulator: 5",
            "1: simulator: 5 is not allowed: the path of a program;"
            " YAML takes it for a value of type int, so put it in quotes",
        ),
        (
            "filter: {tgids: 1}",
            "1: filter.tgids: 1 is not allowed: a list, each item a whole number from 1 to 4194304",
        ),
        # Impossible values.
        (
            "log: {level: warn}",
            "1: log.level: warn is not allowed (did you mean warning?): one of debug, info, warning, error",
        ),
        (
            f"filter: {{tgids: [{', '.join(map(str, range(1, 18)))}]}}",
            "1: filter.tgids: a list of 17 is not allowed: 0 to 16 items",
        ),
        (
            "web: {listen_addresses: []}",
            "1: web.listen_addresses: a list of 0 is not allowed: 1 to 16 items",
        ),
        (
            "web: {listen_addresses: ['10466']}",
            '1: web.listen_addresses[0]: "10466" is not allowed: :port, host:port or [IPv6]:port'
            " with a port from 0 (any free one) to 65535",
        ),
        (
            "filter: {comms: [ääääääää]}",
            "1: filter.comms[0]: ääääääää is not allowed: a command name of 1 to 15 bytes, as in /proc/PID/comm",
        ),
        ("loader: {python: python3}", "1: loader.python: python3 is not allowed: an absolute path"),
        (
            "loader: {timeout: 0}",
            "1: loader.timeout: 0 is not allowed: a duration from 1s to 10m, as 90s or 1h30m",
        ),
        (
            "probes: {exclude: [hmm_range_faults]}",
            "1: probes.exclude[0]: hmm_range_faults is not allowed (did you mean hmm_range_fault?):"
            " the name of a probe, as hmm-exporter --check lists them",
        ),
        (
            'simulator: "a\\u202eb\\nc\\u0000"',
            '1: simulator: "a\\u202eb\\nc\\x00" is not allowed: the path of a program',
        ),
        # Not YAML, or not one document.
        ("a: b\n---\nc: d\n", "2: another document begins: one is allowed"),
        ("web:\n  a: b: c\n", "2:7: not YAML: mapping values are not allowed here"),
        (
            "log: 'info\n\n",
            "3:1: not YAML: while scanning a quoted scalar from line 1 on, found unexpected end of stream",
        ),
        ("web: {a: \x07}", "1: not YAML: character U+0007"),
        # Tags.
        *(
            (text, f"{line}: tag {tag} is not allowed: values without a tag, in quotes if text")
            for text, line, tag in (
                ("\nweb: !!python/object:os.system {telemetry_path: /m}", 2, "!!python/object:os.system"),
                ("filter:\n  comms: !!python/tuple [a]", 2, "!!python/tuple"),
                ("log: {level: !!python/name:os.system info}", 1, "!!python/name:os.system"),
                ("!!python/object/apply:os.system web: {}", 1, "!!python/object/apply:os.system"),
                ("limits: !!null {owners: 1}", 1, "!!null"),
                ("limits: !mine {owners: 1}", 1, "!mine"),
                ("nothing: [known, [to: {nobody: !deep 1}]]", 1, "!deep"),
            )
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(write: Write, text: str, said: str) -> None:
    assert complaint(write(text)) == f"config.yaml:{said}"


def test_an_address_without_quotes_in_a_flow_list_is_explained(write: Write) -> None:
    said = complaint(write("web:\n  listen_addresses: [:10466]\n"))
    assert said.startswith("config.yaml:2:22: not YAML: ")
    assert said.endswith("(a text that begins with a colon needs quotes)")


@pytest.mark.parametrize("path", ["/", "/metrics", "/a/b.c_d~e-f", "/metrics/"])
def test_a_telemetry_path_may_be(write: Write, path: str) -> None:
    assert load(write(f"web: {{telemetry_path: {path}}}")).web.telemetry_path == path


@pytest.mark.parametrize("path", ["metrics", "//", "/a//b", "/-/ready", "/a?b", '"/a b"', '""'])
def test_a_telemetry_path_may_not_be(write: Write, path: str) -> None:
    assert "is not allowed: a path such as /metrics" in complaint(write(f"web:\n  telemetry_path: {path}"))


@pytest.mark.parametrize("key", [option.key for option in options()])
def test_each_whole_number_has_bounds_that_hold_on_both_sides(write: Write, key: str) -> None:
    option = next(option for option in options() if option.key == key)
    if type(option.default) is not int:
        return
    section, _, name = key.rpartition(".")
    for value in (option.rule.low, option.rule.high):
        config = load(write(f"{section}: {{{name}: {value}}}"))
        assert getattr(getattr(config, section), name) == value
    for value in (option.rule.low - 1, option.rule.high + 1):
        assert "is not allowed: a whole number from" in complaint(write(f"{section}: {{{name}: {value}}}"))


def test_every_probe_can_be_excluded(write: Write) -> None:
    names = tuple(probe.name for probe in PROBES)
    config = load(write("probes:\n  exclude:\n" + "".join(f"  - {name}\n" for name in names)))
    assert config.probes.exclude == names


def test_a_file_that_is_not_there_is_told() -> None:
    assert complaint("/nowhere/config.yaml") == "config.yaml: cannot be read: No such file or directory"


def test_a_directory_is_told(tmp_path: Path) -> None:
    assert complaint(tmp_path) == f"{tmp_path.name}: cannot be read: Is a directory"


def test_a_file_that_may_not_be_read_is_told(write: Write, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # To root nothing is forbidden, but a socket cannot be opened by anybody.
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert complaint(path) == "socket: cannot be read: No such device or address"
    else:
        path = write("")
        path.chmod(0)
        assert complaint(path) == "config.yaml: cannot be read: Permission denied"


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"web:\n  telemetry_path: /\xff\n")
    assert complaint(path) == "config.yaml:2: not UTF-8: byte 0xff"


def test_utf16_is_told_to_be_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("web:\n".encode("utf-16"))
    assert complaint(path) == "config.yaml:1: not UTF-8: byte 0xff"


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    assert complaint("/dev/zero") == "zero: too large: at most 256 KiB"


def test_a_pipe_can_be_read() -> None:
    read, write = os.pipe()
    os.write(write, b"log: {level: debug}\n")
    os.close(write)
    try:
        assert load(f"/dev/fd/{read}").log.level == "debug"
    finally:
        os.close(read)


def test_a_path_with_control_characters_stays_one_line() -> None:
    assert complaint("/nowhere/a\nb") == r"a\nb: cannot be read: No such file or directory"


def test_aliases_that_multiply_cost_nothing(write: Write) -> None:
    lines = ["a: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert complaint(write("\n".join(lines))).startswith("config.yaml:1: a: unknown key")
    bomb = "filter:\n  comms: &a [" + ", ".join(["[x]"] * 16) + "]\n"
    assert complaint(write(bomb)).startswith("config.yaml:2: filter.comms[0]: a list is not")


def test_an_alias_to_itself_is_told(write: Write) -> None:
    assert complaint(write("web: &w\n  listen_addresses: *w\n")).startswith(
        "config.yaml:1: web.listen_addresses: a mapping is not allowed"
    )


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 60_000, "- " * 50_000])
def test_nesting_without_end_is_told(write: Write, text: str) -> None:
    assert complaint(write(text)) == "config.yaml: nested too deeply: three levels are enough"


def complaint_or_none(text: str) -> str | None:
    """What loading *text* says, from a file in memory, because hypothesis makes hundreds of them."""
    with os.fdopen(os.memfd_create("config"), "wb", buffering=0) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
        try:
            load(f"/dev/fd/{file.fileno()}")
        except ConfigError as error:
            return str(error)
    return None


@given(st.text())
def test_whatever_a_file_says_it_is_a_configuration_or_one_line(text: str) -> None:
    assert (complaint_or_none(text) or "fine").isprintable()


_keys = st.sampled_from([option.key.rpartition(".")[2] for option in options()] + ["web", "limits"])
_scalars = (
    st.sampled_from(["0", "010", "yes", "~", "1h", "true", "''", "-1", "1.5", "/x", ":1", "info"])
    | st.integers().map(str)
    | st.text(max_size=20).map(lambda text: yaml.safe_dump(text).splitlines()[0])
)
_trees = st.recursive(
    _scalars,
    lambda below: (
        st.lists(below, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_keys, below), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.sampled_from(ROOT.split(", ")), _trees), max_size=4))
def test_whatever_its_options_are_it_is_a_configuration_or_one_line(
    pairs: list[tuple[str, str]],
) -> None:
    text = "\n".join(f"{key}: {value}" for key, value in pairs)
    assert (complaint_or_none(text) or "fine").isprintable()


def test_a_flag_takes_the_place_of_the_option() -> None:
    config = override(Config(), "log.level", ["debug"], "--log.level")
    assert config == dataclasses.replace(Config(), log=dataclasses.replace(Config().log, level="debug"))


def test_a_flag_that_is_repeated_makes_a_list() -> None:
    config = override(Config(), "web.listen_addresses", [":1", "[::1]:2"], "--web.listen-address")
    assert config.web.listen_addresses == (":1", "[::1]:2")


def test_a_flag_of_no_section_takes_the_place_of_the_option() -> None:
    assert override(Config(), "simulator", ["./s"], "--simulator").simulator == "./s"


@pytest.mark.parametrize(
    ("key", "texts", "flag", "said"),
    [
        (
            "log.format",
            ["jsn"],
            "--log.format",
            "jsn is not allowed (did you mean json?): one of logfmt, json",
        ),
        ("simulator", [""], "--simulator", '"" is not allowed: the path of a program'),
        (
            "web.listen_addresses",
            [":1", "x"],
            "--web.listen-address",
            "x is not allowed: :port, host:port or [IPv6]:port with a port from 0 (any free one) to 65535",
        ),
        (
            "web.listen_addresses",
            [":1", ":1"],
            "--web.listen-address",
            "the same value is given twice",
        ),
        (
            "web.listen_addresses",
            [f":{port}" for port in range(17)],
            "--web.listen-address",
            "given 17 times: at most 16 are allowed",
        ),
    ],
)
def test_an_error_names_the_flag(key: str, texts: list[str], flag: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{flag}: {said}')}$"):
        override(Config(), key, texts, flag)


@pytest.mark.parametrize("slip", ["{u:HASH}", "{HASH: u}", "\n  u:HASH: x\n"])
def test_a_hash_in_the_place_of_a_name_is_not_told(write: Write, slip: str) -> None:
    """Found by fuzzing: where a space is missing, a name is all that there is."""
    stored = "$2y$10$abcdefghijklmnopqrstuuSPfMOLo5gSrmYNtYFzuGXdUFzbSSzRi"
    with pytest.raises(ConfigError) as refused:
        web_config.load(write(f"basic_auth_users: {slip.replace('HASH', stored)}"))
    assert "basic_auth_users" in str(refused.value)
    assert stored[7:20] not in str(refused.value)
