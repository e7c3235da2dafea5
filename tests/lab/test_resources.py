# SPDX-License-Identifier: Apache-2.0
"""Names of devices by the kernel's tree of resources, on a stock kernel, with no more rights than the service has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from hmm_exporter.kernel.iomem import Resource, parse
from tests.lab.vm import VirtualMachine

RIGHTS = "+bpf,+perfmon,+syslog"
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
        PYTHONPATH=/opt/hmm-exporter setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,{RIGHTS} \\
            --ambient-caps=-all,{RIGHTS} --bounding-set=-all,{RIGHTS} python3 -u /tmp/resources.py |
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
