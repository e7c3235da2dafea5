/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Thrash: memory that goes to a device and comes back by a CPU fault. When a 2 MiB region of a
 * process last received pages on a device, and how long they stayed. The daemon removes what is
 * older than an hour, and sooner when there is no room; a region of an address space that ended
 * can at most be met by a fork's child.
 */

struct arrival_key {
	u64 mm;
	u64 region; /* address >> REGION_SHIFT */
};

struct arrival {
	u64 since; /* ktime */
};

BPF_TABLE("hash", struct arrival_key, struct arrival, arrival_map, 1);
/* Arrivals whose residency has not been observed yet: whoever removes one observes it, once. */
BPF_TABLE("hash", struct arrival_key, struct arrival, resident_map, 1);

INLINE void lose(u8 loss)
{
	struct loss *row = loss_row(loss);

	if (row)
		add(&row->events, 1);
}

INLINE void arrived(u64 mm, u64 region, u64 now)
{
	struct arrival_key key = {};
	struct arrival arrival = {};

	key.mm = mm;
	key.region = region;
	arrival.since = now;
	if (arrival_map.update(&key, &arrival) || resident_map.update(&key, &arrival))
		lose(LOSS_arrival_full);
}

INLINE void observe_residency(u8 device, u64 elapsed)
{
	struct device *row = device_row(device);

	if (!row)
		return;
	add(&row->residency_ns, elapsed);
	observe_ns(row->residency, elapsed);
}

/* A CPU fault brings pages of a region back: whether within the thrash window. */
INLINE u8 came_back(u64 mm, u64 region, u64 now, u64 src_pfn)
{
	struct arrival_key key = {};
	struct arrival *arrival;

	key.mm = mm;
	key.region = region;
	arrival = arrival_map.lookup(&key);
	if (!arrival) {
		lose(LOSS_arrival_unknown);
		return 0;
	}
	u64 elapsed = difference(now, arrival->since); /* it may have arrived anew since `now` */

	if (!resident_map.delete(&key))
		observe_residency(device_of(src_pfn), elapsed);
	return elapsed <= THRASH_WINDOW_NS;
}
