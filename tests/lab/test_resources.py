# SPDX-License-Identifier: Apache-2.0
"""What the service can do with no more rights than it has: all probes, and names of devices by the kernel's tree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from hmm_exporter.kernel.iomem import Resource, parse
from tests.exposition import Samples
from tests.lab import guest
from tests.lab.conftest import GuestExporter
from tests.lab.vm import VirtualMachine

RIGHTS = "+bpf,+perfmon,+syslog"
SERVICE = (
    f"setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,{RIGHTS}"
    f" --ambient-caps=-all,{RIGHTS} --bounding-set=-all,{RIGHTS}"
)
CAPABILITIES = 1 << 39 | 1 << 38 | 1 << 34
RELOADS = 4


def test_a_service_with_three_capabilities_names_devices_while_their_driver_comes_and_goes(
    machine: VirtualMachine,
) -> None:
    machine.run("modprobe -r test_hmm && modprobe test_hmm")
    machine.run("cat > /tmp/resources.py", stdin=Path(__file__).with_name("resources.py").read_bytes())
    machine.run("chmod -R a+rX /opt/hmm-exporter /tmp/resources.py")
    answer = machine.run(
        # The walks begin when the probes are attached, and end with the loop.
        f"""cd $(mktemp -d); mkfifo begin; (read -r _ < begin
        for _ in $(seq {RELOADS}); do modprobe -r test_hmm; modprobe test_hmm; done) |
        PYTHONPATH=/opt/hmm-exporter {SERVICE} python3 -u /tmp/resources.py |
        (read -r first; echo "$first"; echo > begin; cat)""",
        timeout=300,
    )
    assert answer.stderr == ""
    walks = [json.loads(line) for line in answer.stdout.splitlines()]
    found = [[Resource(*row) for row in resources] for _, _, _, resources, _ in walks]
    shown = parse(machine.run("cat /proc/iomem").stdout)

    assert {(asked, problem) for asked, problem, *_ in walks} == {("ResourceWalk", "")}
    assert [rights for _, _, rights, *_ in walks] == [CAPABILITIES] + [0] * (len(walks) - 1)
    assert [dataclasses.replace(each, device_private=None) for each in found[-1]] == shown
    both = [["hmm_dmirror-0", "test_hmm", ""], ["hmm_dmirror-1", "test_hmm", ""]]
    assert walks[0][-1] == walks[-1][-1] == both
    for resources, (*_, devices) in zip(found, walks):
        private = [each.name for each in resources if each.device_private]
        assert private == ["hmm_dmirror"] * len(devices)
        assert [device for device in both if device in devices] == devices
        assert [each for each in resources if not each.device_private] == [
            each for each in found[0] if not each.device_private
        ]
    print(f"{len(walks)} walks, {sum(walk[-1] != both for walk in walks)} of them without one of the devices")


def test_a_service_with_three_capabilities_can_attach_what_root_can(
    exporter: GuestExporter, machine: VirtualMachine
) -> None:
    machine.run("chmod -R a+rX /opt/hmm-exporter /tmp/hmm-exporter.yaml")
    command = f"cd /opt/hmm-exporter; exec {SERVICE} python3 -m hmm_exporter --config.file /tmp/hmm-exporter.yaml"
    checked = machine.run(f"{command} --check --strict", timeout=300)
    by_root = [dict(its) for its in exporter.scrape().named("hmm_exporter_probe_info")]
    assert checked.stderr == ""
    lines = [line.split(maxsplit=2) for line in checked.stdout.splitlines()]
    assert {(probe, state) for probe, state, _ in lines} == {(its["probe"], its["state"]) for its in by_root}
    assert {how for _, state, how in lines if state == "attached"} == {
        f"{its['kind']} on {its['function']}" for its in by_root if its["state"] == "attached"
    }


def test_a_service_with_three_capabilities_counts_what_root_counts_by_the_same_names(
    exporter: GuestExporter, machine: VirtualMachine
) -> None:
    guest.transparent_hugepages(machine, "never")
    guest.reload_test_hmm(machine)
    machine.run("chmod -R a+rX /opt/hmm-exporter /tmp/hmm-exporter.yaml")
    listen = "127.0.0.1:10467"
    daemon = machine.start(
        f"cd /opt/hmm-exporter; exec {SERVICE} python3 -m hmm_exporter --config.file /tmp/hmm-exporter.yaml"
        f" --web.listen-address {listen}"
    )
    daemon.wait_for_output("msg=ready", timeout=300)
    rights = machine.run(f"grep -E '^(Uid|Cap(Prm|Eff|Bnd))' /proc/{daemon.pid}/status").stdout.split()
    fetch = f"""python3 -c 'import urllib.request; print(urllib.request.urlopen("http://{listen}/metrics").read().decode())'"""
    before = exporter.scrape()
    assert guest.hmm_test(machine, "hmm.hmm_device_private.migrate_fault").passed
    by_root = exporter.scrape()
    by_service = Samples.parse(machine.run(fetch).stdout)
    assert daemon.stop().status == 0, daemon.stderr()

    nothing = f"{0:016x}"  # once the probes are attached; to empty the bounding set takes CAP_SETPCAP
    capabilities = ["CapPrm:", nothing, "CapEff:", nothing, "CapBnd:", f"{CAPABILITIES:016x}"]
    assert rights == ["Uid:", *["65534"] * 4, *capabilities]
    assert by_service.named("hmm_exporter_probe_info") == by_root.named("hmm_exporter_probe_info")
    assert {dict(its)["device"] for its in by_service.named("hmm_device_info")} >= {"hmm_dmirror-0", "hmm_dmirror-1"}
    for metric in ("hmm_device_info", "hmm_pgmap_owner_info"):
        assert by_service.named(metric).items() <= by_root.named(metric).items()
    since = by_root.since(before)
    for metric in ("hmm_migrations_completed_total", "hmm_migration_moved_bytes_total"):
        assert by_service.nonzero(metric) == since.nonzero(metric) != {}
