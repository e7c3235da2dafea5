/* SPDX-License-Identifier: Apache-2.0 */
/* After kernel/resource.c: who has which physical addresses, and /proc/iomem. */
#include "iomem.h"

#include <stdio.h>

struct resource {
	u64 start, end; /* both belong to it */
	const char *name;
	unsigned int depth;
};

static const struct resource ordinary[] = {
	{ 0x0, 0xfff, "Reserved", 0 },
	{ 0x1000, 0x9ffff, "System RAM", 0 },
	{ 0xa0000, 0xfffff, "Reserved", 0 },
	{ 0x100000, 0x7fffffff, "System RAM", 0 },
	{ 0x1000000, 0x1dfffff, "Kernel code", 1 },
	{ 0x80000000, 0xfebfffff, "PCI Bus 0000:00", 0 },
	{ 0xf0000000, 0xf00fffff, "PCI Bus 0000:c1", 1 },
	{ 0xf0000000, 0xf007ffff, "0000:c1:00.0", 2 },
	{ 0xf0100000, 0xf01fffff, "PCI Bus 0000:c6", 1 },
	{ 0xf0100000, 0xf017ffff, "0000:c6:00.0", 2 },
	{ 0xfee00000, 0xfee00fff, "Local APIC", 0 },
	{ 0x100000000, 0x207fffffff, "System RAM", 0 },
	{ 0x280000000000, 0x2bffffffffff, "PCI Bus 0000:c0", 0 },
	{ 0x280000000000, 0x2810001fffff, "PCI Bus 0000:c1", 1 },
	{ 0x280000000000, 0x280fffffffff, "0000:c1:00.0", 2 },
	{ 0x281000000000, 0x2810001fffff, "0000:c1:00.0", 2 },
	{ 0x282000000000, 0x2830001fffff, "PCI Bus 0000:c6", 1 },
	{ 0x282000000000, 0x282fffffffff, "0000:c6:00.0", 2 },
	{ 0x283000000000, 0x2830001fffff, "0000:c6:00.0", 2 },
	{ 0x2c0000000000, 0x2c03ffffffff, "PCI Bus 0000:03", 0 },
	{ 0x2c0000000000, 0x2c03ffffffff, "0000:03:00.0", 1 },
};

/* request_free_mem_region takes from the top. A PCI device's driver names it after the device. */
static const struct {
	u64 start, end;
	const char *resource, *device;
} regions[NR_REGIONS] = {
	[REGION_UVM_1] = { 0x3f0000000000, 0x3f0fffffffff, "nvidia-uvm-hmm", "nvidia-uvm-hmm-1" },
	[REGION_UVM_0] = { 0x3f1000000000, 0x3f1fffffffff, "nvidia-uvm-hmm", "nvidia-uvm-hmm-0" },
	[REGION_XE] = { 0x3f2000000000, 0x3f23ffffffff, "0000:03:00.0", "0000:03:00.0" },
	[REGION_NOUVEAU] = { 0x3f2400000000, 0x3f25ffffffff, "nouveau_dmem", "nouveau_dmem-0" },
	[REGION_AMDGPU_1] = { 0x3f3000000000, 0x3f3fffffffff, "0000:c6:00.0", "0000:c6:00.0" },
	[REGION_AMDGPU_0] = { 0x3f4000000000, 0x3f4fffffffff, "0000:c1:00.0", "0000:c1:00.0" },
	[REGION_DMIRROR_1] = { 0x3fffe0000000, 0x3fffefffffff, "hmm_dmirror", "hmm_dmirror-1" },
	[REGION_DMIRROR_0] = { 0x3ffff0000000, 0x3fffffffffff, "hmm_dmirror", "hmm_dmirror-0" },
};

static bool is_device_pfn(unsigned long pfn)
{
	return pfn >= regions[0].start >> PAGE_SHIFT;
}

static const char *device_of(unsigned long pfn)
{
	for (enum region_id i = 0; i < NR_REGIONS; i++)
		if (regions[i].start <= pfn << PAGE_SHIFT && pfn << PAGE_SHIFT <= regions[i].end)
			return regions[i].device;
	return "none";
}

static void print_resource(u64 start, u64 end, const char *name, unsigned int depth)
{
	printf("%*s%08lx-%08lx : %s\n", 2 * depth, "", start, end, name);
}

static void print_iomem(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(ordinary); i++)
		print_resource(ordinary[i].start, ordinary[i].end, ordinary[i].name, ordinary[i].depth);
	for (enum region_id i = 0; i < NR_REGIONS; i++)
		print_resource(regions[i].start, regions[i].end, regions[i].resource, 0);
}
