/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose page a page frame is. The daemon reads the kernel's resource tree (kernel/devices.py) and
 * writes down where RAM ends and where each device's pages lie: device-private ranges are put at
 * the top of the physical address space, behind all RAM (kernel/resource.c, get_free_mem_region).
 */

struct devices {
	u64 ram_end; /* the first page frame that is no RAM's */
	u64 count;
	struct {
		u64 first;
		u64 last;
		u64 number; /* what rows call it */
	} region[DEVICE_REGIONS];
};

BPF_TABLE("array", u32, struct devices, devices_map, 1);

INLINE struct devices *known_devices(void)
{
	u32 index = 0;

	return devices_map.lookup(&index);
}

/* 0 is no page. A range that is not known yet is DEVICE_unknown until the daemon has looked again. */
INLINE u8 device_of(u64 pfn)
{
	struct devices *devices = known_devices();

	if (!pfn)
		return DEVICE_none;
	if (!devices)
		return DEVICE_unknown;
	for (int i = 0; i < DEVICE_REGIONS; i++) {
		if (i >= devices->count)
			break;
		if (devices->region[i].first <= pfn && pfn <= devices->region[i].last)
			return devices->region[i].number;
	}
	return DEVICE_unknown;
}
