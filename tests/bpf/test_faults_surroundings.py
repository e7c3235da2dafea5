# SPDX-License-Identifier: Apache-2.0
"""A machine that lacks what every machine has: it serves without, or says in one line why it cannot.

Each is taken away for real, for this process alone. Without BTF and kallsyms: test_failures.py.
"""

from __future__ import annotations

import os
import subprocess
import urllib.error
from pathlib import Path

import pytest

from tests.bpf.faults import (
    check_totals,
    command,
    free_port,
    held_by,
    in_a_world_where,
    remain,
    scrape,
    starting,
    the_error,
    total,
    within,
)
from tests.exposition import Samples
from tests.process import ROOT, Exporter, issue_exactly

HIDE = "mount -t tmpfs none"


def test_it_counts_exactly_where_none_of_what_it_can_do_without_is_there(tmp_path: Path) -> None:
    world = (
        "mount -o remount,bind,ro /",
        "mount --bind /dev/null /proc/kallsyms",
        f"{HIDE} /sys/kernel",  # with it tracefs, debugfs, securityfs, BTF
        f"{HIDE} /dev",
    )
    with Exporter(tmp_path, prefix=in_a_world_where(" && ".join(world))) as exporter:
        issued = issue_exactly(300)
        check_totals(exporter.scrape(), issued)


def test_without_sys_it_serves_and_says_that_nothing_is_watched(tmp_path: Path) -> None:
    with Exporter(tmp_path, {"simulator": None}, prefix=in_a_world_where(f"{HIDE} /sys")) as exporter:
        assert 'msg="nothing is watched"' in exporter.log
        assert "no BTF (/sys/kernel/btf/vmlinux: No such file or directory)" in exporter.log
        samples = exporter.scrape()
        assert not [name for name in samples.names() if name.startswith("hmm_migration")]
        assert samples.sum("hmm_exporter_probe_info", state="error") > 0


def test_closed_standard_files_without_dev_null_are_no_error(tmp_path: Path) -> None:
    world = in_a_world_where(f"{HIDE} /dev && exec <&- >&- 2>&-")
    assert subprocess.run([*world, *command(tmp_path, {}, ["--version"])], cwd=ROOT).returncode == 0


IPV6 = "ip link set lo up && ip address del 127.0.0.1/8 dev lo"


def test_with_ipv6_only_it_is_scraped_by_ipv6(tmp_path: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine's kernel has no IPv6")
    addresses = [":10466", "[::1]:10467"]
    with starting(tmp_path, in_a_world_where(IPV6, "--net"), web={"listen_addresses": addresses}) as daemon:
        assert daemon.said(" msg=ready "), daemon.log
        for port in (10466, 10467):
            curl = ["curl", "--silent", "--show-error", "--globoff", f"http://[::1]:{port}/metrics"]
            inside = ["nsenter", f"--net=/proc/{daemon.process.pid}/ns/net", *curl]
            page = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
            assert Samples.parse(page).get("hmm_exporter_books_balanced") == 1


def test_an_address_that_this_machine_has_not_is_named(tmp_path: Path) -> None:
    prefix = in_a_world_where(IPV6, "--net")
    with starting(tmp_path, prefix, web={"listen_addresses": ["127.0.0.1:10466"]}) as daemon:
        assert "cannot listen on 127.0.0.1:10466: this machine has no such address" in the_error(daemon)


def test_in_a_user_namespace_the_refusal_names_it(tmp_path: Path) -> None:
    with starting(tmp_path, ["unshare", "--user", "--map-root-user"]) as daemon:
        assert "a user namespace, a security module or a seccomp profile forbids it" in the_error(daemon)


@pytest.mark.parametrize("ahead", [10**7, -1000])
def test_in_a_time_namespace_what_is_under_way_is_not_taken_for_old(tmp_path: Path, ahead: int) -> None:
    # Threads and arrivals are stamped with the kernel's own clock, whatever the daemon's shows.
    prefix = ["unshare", "--time", f"--monotonic={ahead}", f"--boottime={ahead}"]
    frequent_sweeps = {"WATCHDOG_USEC": "100000"}
    with Exporter(tmp_path, prefix=prefix, environment=frequent_sweeps) as exporter:
        issued = issue_exactly(2000)
        samples = exporter.scrape()
    check_totals(samples, issued)
    assert samples.get("hmm_exporter_residency_misses_total") == total(issued, "returns", result="unknown")
    assert 0 <= samples.get("hmm_exporter_ready_duration_seconds") < 1000


FEW = 40


def test_too_few_descriptors_are_one_line(tmp_path: Path) -> None:
    with starting(tmp_path, ["prlimit", f"--nofile={FEW}"]) as daemon:
        assert f"only {FEW} files may be open (RLIMIT_NOFILE, systemd's LimitNOFILE): " in the_error(daemon)


def test_a_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    with Exporter(tmp_path, prefix=["prlimit", f"--nofile={FEW}:4096"]) as exporter:
        issued = issue_exactly(300)
        check_totals(exporter.scrape(), issued)


def test_no_room_for_a_thread_is_one_line(tmp_path: Path) -> None:
    # Root is not counted (RLIMIT_NPROC, getrlimit(2)); so it is somebody else, who needs no right for this.
    prefix = ["setpriv", "--reuid=65531", "--regid=65531", "--clear-groups", "prlimit", "--nproc=1"]
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if not os.stat(parent).st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o011)
    with starting(tmp_path, prefix) as daemon:
        assert "no thread can be started to answer by: a limit is reached (RLIMIT_NPROC, " in the_error(daemon)


@pytest.mark.parametrize("mebibytes", [60, 200])
def test_where_memory_does_not_suffice_to_compile_it_is_the_loader_that_is_named(
    tmp_path: Path, mebibytes: int
) -> None:
    with starting(tmp_path, ["prlimit", f"--as={mebibytes << 20}"]) as daemon:
        assert ' msg="loader: ' in the_error(daemon)


def test_a_full_disk_below_the_log_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    prefix = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"]
    with starting(tmp_path, prefix, web={"listen_addresses": [f"127.0.0.1:{port}"]}) as daemon:
        assert within(60, lambda: answers(url))
        issued = issue_exactly(300)
        check_totals(scrape(url), issued)
        held = held_by(daemon.process.pid)
        assert held["programs"]
        daemon.process.terminate()
        assert daemon.status() == 0
        assert daemon.log == ""
    assert not any(remain(held).values())


def answers(url: str) -> bool:
    try:
        scrape(url)
    except urllib.error.URLError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("fifo", "cannot be read: nobody wrote it to its end within 5 s"),
        (".", "cannot be read: Is a directory"),
        ("/dev/zero", "too large: at most 256 KiB"),
        ("hmm-exporter.yaml/x", "cannot be read: Not a directory"),
    ],
)
def test_a_configuration_that_is_no_file_is_one_line(tmp_path: Path, path: str, said: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with starting(tmp_path, arguments=[f"--config.file={tmp_path / path}"]) as daemon:
        assert said in the_error(daemon)
        assert daemon.status() == 2
