# SPDX-License-Identifier: Apache-2.0
"""What `make install` installs, under a real systemd: started, scraped, frozen, given a socket, hardened, stopped."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.exposition import Samples
from tests.lab.conftest import ROOT, build_mirror
from tests.lab.emulator import SYSTEMD
from tests.lab.image import ensure_image
from tests.lab.prediction import PAGE
from tests.lab.recipe import RECIPES, chosen
from tests.lab.vm import VirtualMachine

pytestmark = pytest.mark.skipif(chosen() != RECIPES[0], reason=f"only the image of {RECIPES[0].kernel} has systemd")

CHECKOUT = ("hmm_exporter", "deploy", "scripts", "pyproject.toml", "config.example.yaml")
INSTALLED_DROP_INS = "/usr/local/share/hmm-exporter"
DROP_INS = "/etc/systemd/system/hmm-exporter.service.d"
# With the machine's processor emulated and the host busy, LLVM takes its time.
PATIENT_SERVICE = "[Service]\nTimeoutStartSec=600s\n"
#: And shows at once what it has counted.
PATIENT = "loader: {timeout: 300s}\nseries_from_zero: 0\n"
PAGES = 64


class Service:
    """hmm-exporter.service in a machine, asked from outside."""

    def __init__(self, machine: VirtualMachine) -> None:
        self.machine = machine

    def run(self, command: str) -> str:
        return self.machine.run(command, timeout=900).stdout.strip()

    def show(self, name: str) -> str:
        return self.run(f"systemctl show --value --property={name} hmm-exporter")

    def configure(self, *drop_ins: str) -> None:
        """Stops it, and gives it these of the drop-ins that are installed."""
        self.run(f"systemctl stop hmm-exporter.socket hmm-exporter; rm -rf {DROP_INS}; mkdir {DROP_INS}")
        self.machine.run(f"cat > {DROP_INS}/lab.conf", stdin=PATIENT_SERVICE.encode())
        for name in drop_ins:
            self.run(f"cp {INSTALLED_DROP_INS}/{name}.conf {DROP_INS}")
        self.run("systemctl daemon-reload")

    def wait_until_active(self) -> None:
        self.run("until systemctl is-active --quiet hmm-exporter; do sleep 1; done")

    def scrape(self) -> Samples:
        url = f"http://127.0.0.1:{self.machine.host_port}/metrics"
        with urllib.request.urlopen(url, timeout=120) as response:
            return Samples.parse(response.read().decode())

    def counted(self) -> Samples:
        """What the exporter counted while pages went to the device and back, as the driver confirms."""
        before = self.scrape()
        said = self.run(f"/run/mirror warm={PAGES} migrate back").split()
        assert said == ["migrate", str(PAGES), "back", str(PAGES)]
        after = self.scrape()
        assert after.get("hmm_exporter_books_balanced") == 1
        return after.since(before)

    def attached(self) -> list[str]:
        """BPF programs but systemd's own, which are of other types."""
        types = ("kprobe", "raw_tracepoint", "tracing")
        programs = json.loads(self.run("bpftool --json prog list"))
        return [program["name"] for program in programs if program["type"] in types]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    checkout = tmp_path_factory.mktemp("checkout")
    for name in CHECKOUT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    with VirtualMachine(ensure_image(), init=SYSTEMD) as machine:
        machine.push(checkout, "/root/checkout")
        machine.push(build_mirror(tmp_path_factory.mktemp("mirror")), "/run/mirror")
        machine.run("echo never > /sys/kernel/mm/transparent_hugepage/enabled")
        # All that it needs is in this system, so nothing is fetched.
        machine.run("/root/checkout/scripts/install.sh install", timeout=300)
        machine.run("cat > /etc/hmm-exporter/config.yaml", stdin=PATIENT.encode())
        yield Service(machine)


@pytest.fixture(scope="module")
def started(service: Service) -> Service:
    """As it is installed, and systemd says that it is ready."""
    service.configure()
    service.run("systemctl start hmm-exporter")
    return service


def assert_moved(since: Samples) -> None:
    for direction in ("host_to_device", "device_to_host"):
        moved = since.sum("hmm_migration_moved_bytes_total", direction=direction, device="hmm_dmirror-0")
        assert moved == PAGES * PAGE
    assert since.sum("hmm_migrations_started_total", pgmap_owner="test_hmm-0") == 2


def test_the_units_are_what_this_systemd_understands(service: Service) -> None:
    service.configure("hardened", "paranoid", "socket")
    verified = service.machine.run("systemd-analyze verify hmm-exporter.service hmm-exporter.socket", timeout=120)
    assert verified.stdout + verified.stderr == ""


def test_once_it_is_started_it_says_what_it_attached_and_counts_right(started: Service) -> None:
    probes = started.scrape().named("hmm_exporter_probe_attached").values()
    assert sum(probes) == len(probes) > 10
    assert started.show("StatusText") == f"{len(probes)} of {len(probes)} probes attached"
    assert_moved(started.counted())


def test_it_is_nobody_without_a_capability_and_may_gain_none(started: Service) -> None:
    status = started.run(f"cat /proc/{started.show('MainPID')}/status")
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    # To empty the bounding set takes CAP_SETPCAP.
    assert fields["CapBnd"] == f"{1 << 39 | 1 << 38 | 1 << 34:016x}"  # CAP_BPF, CAP_PERFMON, CAP_SYSLOG
    assert "0" not in fields["Uid"].split()
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_frozen_it_is_started_again_by_the_watchdog_and_counts_right(started: Service) -> None:
    assert started.show("NRestarts") == "0"
    started.run("systemctl kill --signal=STOP hmm-exporter")
    started.run('until [ "$(systemctl show --value --property=NRestarts hmm-exporter)" = 1 ]; do sleep 1; done')
    started.wait_until_active()
    assert "Watchdog timeout" in started.run("journalctl --unit hmm-exporter --no-pager")
    assert_moved(started.counted())
    assert started.show("NRestarts") == "1"


def test_stopped_it_leaves_nothing_attached(started: Service) -> None:
    assert "walk_resources" in started.attached()
    started.run("systemctl stop hmm-exporter")
    assert started.show("Result") == "success"
    assert started.attached() == []
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        started.scrape()


def test_a_connection_starts_it_hardest_without_network_and_it_counts_right_without_names(service: Service) -> None:
    service.configure("hardened", "socket")
    service.run("systemctl start hmm-exporter.socket")
    assert service.show("ActiveState") == "inactive"
    assert service.run("curl --silent --show-error http://127.0.0.1:10466/-/healthy") == "healthy"
    service.wait_until_active()
    since = service.counted()
    assert since.sum("hmm_migrations_started_total") == 2
    assert since.sum("hmm_migration_requested_bytes_total") == 2 * PAGES * PAGE
    assert since.sum("hmm_migrations_completed_total") == 2
    named = {
        value for _, labels in since.values for name, value in labels if name in ("device", "driver", "pgmap_owner")
    }
    assert not [name for name in named if "dmirror" in name or "test_hmm" in name]
    assert not since.names() & {"hmm_device_info", "hmm_migration_moved_bytes_total"}
    links = service.run(f"nsenter --net --target {service.show('MainPID')} ip -brief link")
    assert [line.split()[0] for line in links.splitlines()] == ["lo"]


def test_taken_away_it_leaves_its_configuration_alone(service: Service) -> None:
    service.configure()
    service.run("systemctl enable hmm-exporter")
    refused = service.machine.run("/root/checkout/scripts/install.sh uninstall", check=False)
    assert (refused.status, "systemctl disable --now" in refused.stderr) == (1, True)
    service.run("systemctl disable hmm-exporter")
    service.run("/root/checkout/scripts/install.sh uninstall")
    left = service.run("find /etc/hmm-exporter /usr/local -name '*hmm-exporter*' -o -name config.yaml").splitlines()
    assert sorted(left) == ["/etc/hmm-exporter", "/etc/hmm-exporter/config.yaml", "/etc/hmm-exporter/hmm-exporter.env"]
