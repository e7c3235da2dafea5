# SPDX-License-Identifier: Apache-2.0
"""What is loaded and read on the way to know whose page frames are whose."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path

from hmm_exporter.bpf import source, syscall
from hmm_exporter.bpf.attach import attach
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.resource_walk import PROGRAM, ResourceWalk
from hmm_exporter.config import Config
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.symbols import Symbols
from tests.unit.bpf import kernels
from tests.unit.bpf.tracing import Load, Tracing, attached, number


def telling(
    folder: Path, kallsyms: str = "ffffffff82a4f3c0 D iomem_resource\n", iomem: str = "", **facts: str
) -> Kernel:
    """A kernel that tells its symbols, and no ranges, or those of a made /proc/iomem."""
    (folder / "kallsyms").write_text(kallsyms)
    if iomem:
        (folder / "iomem").write_text(iomem)
    return replace(
        kernels.kernel(),
        symbols=Symbols(folder / "kallsyms"),
        iomem=Iomem(folder / "iomem"),
        **facts,  # type: ignore[arg-type]
    )


def resources(kernel: Kernel, config: Config | None = None) -> tuple[type | None, str]:
    """What is to be asked for resources, and why it knows none."""
    plan, _ = choose(kernel, config or kernels.config())
    attachments = attach(kernel, config or kernels.config(), plan)
    found = type(attachments.resources), attachments.resources_problem
    attachments.close()
    kernel.iomem.close()
    kernel.symbols.close()
    return found


def test_the_walk_of_the_resources_is_loaded_once_and_attached_to_nothing(tracing: Tracing, tmp_path: Path) -> None:
    tracing.refuse_link = lambda link: number(errno.ENOTSUP) if link.how == "tracing" else None
    assert resources(telling(tmp_path)) == (ResourceWalk, "")
    assert tracing.compiled == ["fentry", "kprobe"]
    loads = [load for load in tracing.loads if load.program == PROGRAM]
    assert loads == [Load(syscall.PROG_RAW_TRACEPOINT, PROGRAM, 0, 0)]
    assert PROGRAM not in [link.program for link in tracing.links]


def test_where_no_walk_is_possible_the_file_is_asked_if_it_tells_anything(tracing: Tracing, tmp_path: Path) -> None:
    tracing.refuse_load = lambda load: number(errno.EPERM) if load.program == PROGRAM else None
    assert resources(telling(tmp_path, iomem="1000-1fff : System RAM\n")) == (Iomem, "")


def test_lockdown_is_the_reason_before_the_kernel_is_asked(tracing: Tracing, tmp_path: Path) -> None:
    reason = "lockdown is confidentiality: BPF programs may not read the kernel's memory"
    assert resources(telling(tmp_path, lockdown="confidentiality")) == (Iomem, reason)
    assert PROGRAM not in [load.program for load in tracing.loads]


def test_a_kernel_whose_symbols_lack_the_root_has_no_walk(tracing: Tracing, tmp_path: Path) -> None:
    reason = "kallsyms has no iomem_resource: the kernel needs CONFIG_KALLSYMS_ALL"
    assert resources(telling(tmp_path, kallsyms="ffffffff81000000 T _text\n")) == (Iomem, reason)


def test_hidden_symbols_are_the_reason_for_no_walk(tracing: Tracing, tmp_path: Path) -> None:
    _, problem = resources(telling(tmp_path, kallsyms="0000000000000000 D iomem_resource\n"))
    assert "shows no addresses: give CAP_SYSLOG" in problem


def test_what_the_verifier_says_of_the_walk_is_the_reason(tracing: Tracing, tmp_path: Path) -> None:
    tracing.log = "0: (85) call bpf_probe_read_kernel#113\nprogram of this type cannot use helper\nprocessed 1 insns"
    tracing.refuse_load = lambda load: number(errno.EINVAL) if load.program == PROGRAM else None
    _, problem = resources(telling(tmp_path))
    assert problem == "the verifier refuses it: program of this type cannot use helper"


def test_a_simulator_has_its_file_only(tracing: Tracing, tmp_path: Path) -> None:
    (tmp_path / "simulator.iomem").write_text("1000-1fff : hmm_dmirror\n")
    kernel = replace(kernels.kernel(simulated=True), iomem=Iomem(tmp_path / "simulator.iomem"))
    assert resources(kernel) == (Iomem, "")
    assert PROGRAM not in [load.program for load in tracing.loads]


def test_no_reason_and_no_representation_tells_the_address_of_the_root(tracing: Tracing, tmp_path: Path) -> None:
    kernel = telling(tmp_path)
    plan, _ = choose(kernel, kernels.config())
    attachments = attach(kernel, kernels.config(), plan)
    attachments.close()
    kernel.symbols.close()
    kernel.iomem.close()
    told = [repr(attachments.resources), attachments.resources_problem, source.text(plan, "fentry")]
    assert not [each for each in told if "82a4f3c0" in each or str(0xFFFFFFFF82A4F3C0) in each]


IOMEM = "00001000-0fffffffff : System RAM\n3ffe00000000-3fffffffffff : hmm_dmirror\n"


def test_the_programs_are_told_whose_frames_are_whose_before_the_first_one_is_attached(
    tracing: Tracing, tmp_path: Path
) -> None:
    knew: list[bytes] = []
    kernel = telling(tmp_path, iomem=IOMEM, lockdown="confidentiality")
    config = kernels.config(only=("hmm_range_fault",))
    bpf = tracing.bpf
    tracing.refuse_link = lambda link: knew.extend(bpf.maps["devices_map"].rows.values())
    attachments = attach(kernel, config, choose(kernel, config)[0])
    attachments.close()
    kernel.symbols.close()
    assert attachments.knows_devices
    assert attachments.devices.name(0) == "hmm_dmirror-0"
    first = struct.unpack_from("<QQQQQ", knew[0])
    assert first == (0x1000000, 1, 0x3FFE00000000 >> 12, 0x3FFFFFFFFFFF >> 12, 0)


def test_nothing_is_written_while_devices_stay_what_they_are(tracing: Tracing, tmp_path: Path) -> None:
    kernel = telling(tmp_path, iomem=IOMEM, lockdown="confidentiality")
    config = kernels.config(only=("hmm_range_fault",))
    attachments = attach(kernel, config, choose(kernel, config)[0])
    rows = tracing.bpf.maps["devices_map"].rows
    rows.update(dict.fromkeys(rows, b"as it was"))
    attachments.learn_devices(kernel.page_size)
    assert set(rows.values()) == {b"as it was"}
    (tmp_path / "iomem").write_text(IOMEM.replace("3ffe0", "3ffd0"))
    attachments.learn_devices(kernel.page_size)
    assert b"as it was" not in rows.values()
    attachments.close()
    kernel.symbols.close()


def test_ram_that_is_added_is_told_and_a_look_that_tells_none_takes_nothing_back(
    tracing: Tracing, tmp_path: Path
) -> None:
    kernel = telling(tmp_path, iomem=IOMEM, lockdown="confidentiality")
    config = kernels.config(only=("hmm_range_fault",))
    attachments = attach(kernel, config, choose(kernel, config)[0])
    rows = tracing.bpf.maps["devices_map"].rows

    def told() -> tuple[int, ...]:
        return struct.unpack_from("<QQ", next(iter(rows.values())))

    assert told() == (0x1000000, 1)
    for text, expected in ((IOMEM + "2000000000-2fffffffff : System RAM\n", 0x3000000), ("", 0x3000000)):
        (tmp_path / "iomem").write_text(text)
        attachments.learn_devices(kernel.page_size)
        assert told() == (expected, 1)
        assert attachments.knows_devices
    attachments.close()
    kernel.symbols.close()


def test_a_kernel_that_tells_no_ranges_has_no_devices(tracing: Tracing) -> None:
    _, attachments = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",)))
    assert not attachments.knows_devices
    assert attachments.resources_problem
