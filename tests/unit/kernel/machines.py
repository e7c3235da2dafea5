# SPDX-License-Identifier: Apache-2.0
"""/proc/iomem of machines with HMM drivers. Written, not captured: made after what the drivers ask for.

Private ranges lie below the end of the physical addresses that the kernel can map, downwards, in
whole sections of 128 MiB (kernel/resource.c, get_free_mem_region); BARs lie in their bus's window.
"""

from __future__ import annotations

# Two MI210: each a private range as large as its memory, called by its PCI address, and a BAR of the same name.
AMDGPU = """\
00000000-00000fff : Reserved
00001000-0009ffff : System RAM
000a0000-000fffff : Reserved
  000a0000-000bffff : PCI Bus 0000:00
  000f0000-000fffff : System ROM
00100000-75dfffff : System RAM
75e00000-75ffffff : Reserved
a8000000-b3ffffff : PCI Bus 0000:c0
  b3e00000-b3efffff : PCI Bus 0000:c1
    b3e00000-b3e7ffff : 0000:c1:00.0
      b3e00000-b3e7ffff : amdgpu
e0000000-efffffff : PCI ECAM 0000 [bus 00-ff]
  e0000000-efffffff : Reserved
100000000-807e2fffff : System RAM
  22b0600000-22b1dfffff : Kernel code
  22b1e00000-22b28cffff : Kernel rodata
  22b2a00000-22b2fe347f : Kernel data
807e300000-807fffffff : Reserved
18000000000-1ffffffffff : PCI Bus 0000:c0
  1e000000000-1efffffffff : PCI Bus 0000:c1
    1e000000000-1efffffffff : 0000:c1:00.0
      1e000000000-1efffffffff : amdgpu
  1f000000000-1ffffffffff : PCI Bus 0000:c5
    1f000000000-1ffffffffff : 0000:c5:00.0
3fe000000000-3fefffffffff : 0000:c5:00.0
3ff000000000-3fffffffffff : 0000:c1:00.0
"""

# One card with two tiles, that is, two private ranges with the same name that touch; and its functions' BARs.
XE = """\
00001000-0009efff : System RAM
00100000-6f9fefff : System RAM
c0000000-feafffff : PCI Bus 0000:00
100000000-107fffffff : System RAM
4000000000-7fffffffff : PCI Bus 0000:00
  4000000000-5fffffffff : PCI Bus 0000:01
    4000000000-47ffffffff : 0000:03:00.0
    4800000000-4fffffffff : 0000:03:00.1
7ff800000000-7ffbffffffff : 0000:03:00.0
7ffc00000000-7fffffffffff : 0000:03:00.0
"""

# A region for each chunk, of a whole section even if it is 2 MiB; the newest one is the lowest.
NOUVEAU = """\
00001000-0009ffff : System RAM
00100000-7fffffff : System RAM
100000000-87fffffff : System RAM
880000000-8ffffffff : PCI Bus 0000:00
  880000000-88fffffff : 0000:01:00.0
ff8000000-fffffffff : something else
3ffff0000000-3ffff7ffffff : nouveau_dmem
3ffff8000000-3fffffffffff : nouveau_dmem
"""

# Two GPUs of 80 GiB; a region says nothing about which one it belongs to.
NVIDIA_UVM = """\
00001000-0009ffff : System RAM
00100000-9bffffff : System RAM
100000000-f9fffffff : System RAM
20000000000-27fffffffff : PCI Bus 0000:16
  20000000000-21fffffffff : PCI Bus 0000:17
    20000000000-21fffffffff : 0000:17:00.0
      20000000000-21fffffffff : nvidia
3fd800000000-3febffffffff : nvidia-uvm-hmm
3fec00000000-3fffffffffff : nvidia-uvm-hmm
"""

# Memory of accelerators that CPUs read in place: left to drivers by the firmware, some of it made RAM after all.
COHERENT = """\
00001000-0009ffff : System RAM
00100000-7fffffff : System RAM
100000000-107effffff : System RAM
1080000000-307fffffff : Soft Reserved
3080000000-507fffffff : Soft Reserved
  3080000000-507fffffff : dax0.0
    3080000000-507fffffff : System RAM (kmem)
6000000000-6fffffffff : Persistent Memory
7000000000-7fffffffff : CXL Window 0
"""

TEST_HMM = """\
00001000-0009fbff : System RAM
00100000-bffddfff : System RAM
100000000-13fffffff : System RAM
fce0000000-fcefffffff : hmm_dmirror
fcf0000000-fcffffffff : hmm_dmirror
fd00000000-ffffffffff : Reserved
"""
