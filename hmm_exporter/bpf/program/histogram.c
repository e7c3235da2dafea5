/* SPDX-License-Identifier: GPL-2.0-only */
/* Log2 histograms whose bounds are inclusive and exact. Nothing about HMM belongs here. */

/* Smallest n with value <= 2^n. */
INLINE u32 ceil_log2(u64 value)
{
	u32 log = 0;

	if (value <= 1)
		return 0;
	value--;
	if (value >> 32) { log += 32; value >>= 32; }
	if (value >> 16) { log += 16; value >>= 16; }
	if (value >> 8) { log += 8; value >>= 8; }
	if (value >> 4) { log += 4; value >>= 4; }
	if (value >> 2) { log += 2; value >>= 2; }
	if (value >> 1) { log += 1; value >>= 1; }
	return log + value;
}

/* Slot 0 is all up to 2^shift, each next one twice as far, the last one all that is larger. */
INLINE u32 slot_of(u64 value, u32 shift)
{
	u32 log = ceil_log2(value);
	u32 slot = log > shift ? log - shift : 0;

	return slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1;
}

/*
 * Nanoseconds in units of 2^-30 s, rounded up: 10^9 = 1953125 * 2^9, so it is ns * 2^21 / 1953125.
 * Divided before it is multiplied, because ns << 21 overflows after two and a half hours.
 */
INLINE u64 time_units(u64 ns)
{
	u64 whole = ns / 1953125, rest = ns % 1953125;

	return (whole << 21) + ((rest << 21) + 1953124) / 1953125;
}

/* `slots` has HISTOGRAM_SLOTS of them. */
INLINE void observe_bytes(u64 *slots, u64 bytes)
{
	add(&slots[slot_of(bytes, BYTES_SHIFT)], 1);
}

INLINE void observe_ns(u64 *slots, u64 ns)
{
	add(&slots[slot_of(time_units(ns), SECONDS_SHIFT)], 1);
}
