/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The physical address space: RAM, BARs, and behind both the pages of devices' own memory, which
 * no bus can address. Every page frame number that the simulator writes down is one of these.
 */
#ifndef SIMULATOR_IOMEM_H
#define SIMULATOR_IOMEM_H

#include "kernel.h"

/* In the order of their addresses, the order of the file, too. */
enum region_id {
	REGION_UVM_1,
	REGION_UVM_0,
	REGION_XE,
	REGION_NOUVEAU,
	REGION_AMDGPU_1,
	REGION_AMDGPU_0,
	REGION_DMIRROR_1,
	REGION_DMIRROR_0,
	NR_REGIONS,
};

#define RAM_PFN 0x100000UL   /* from 4 GiB on ... */
#define RAM_PAGES 0x1f80000UL /* ... 126 GiB */

/* The device on whose memory a page lies; "none" for ordinary memory. */
static const char *device_of(unsigned long pfn);
static bool is_device_pfn(unsigned long pfn);
/* In the format of /proc/iomem. */
static void print_iomem(void);

#endif
