/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migrate_device_range and _pfns: eviction in xe and nvidia-uvm, teardown elsewhere. They carry
 * no mm, so there is no process to book them to; the filter sees `current`.
 */

/*
 * The thread's row is needed only to tell an eviction's migration entries from other people's:
 * nvidia-uvm calls migrate_device_range once a page, so it is left out where nobody asks.
 */
#ifdef GROUP_per_page
#define DEVICE_ENTER(probe) thread_enter(probe)
#define DEVICE_LEAVE(probe) do { \
	struct thread *thread = thread_leave(probe); \
	if (thread) \
		thread_done(thread); \
} while (0)
#else
#define DEVICE_ENTER(probe)
#define DEVICE_LEAVE(probe)
#endif

INLINE void device_range(u8 function, u64 pages)
{
	struct device_range *row = device_range_row(function);
	u64 bytes = pages * PAGE_SIZE;

	if (!row)
		return;
	add(&row->calls, 1);
	add(&row->bytes, bytes);
	observe_bytes(row->size, bytes);
}

ENTER(migrate_device_range)
{
	if (current_passes(CURRENT_TASK(ctx))) {
		device_range(DEVICE_FUNCTION_migrate_device_range, ARGUMENT_3(ctx));
		DEVICE_ENTER(PROBE_migrate_device_range);
	}
	return 0;
}

LEAVE(migrate_device_range)
{
	DEVICE_LEAVE(PROBE_migrate_device_range);
	return 0;
}

ENTER(migrate_device_pfns)
{
	if (current_passes(CURRENT_TASK(ctx))) {
		device_range(DEVICE_FUNCTION_migrate_device_pfns, ARGUMENT_2(ctx));
		DEVICE_ENTER(PROBE_migrate_device_pfns);
	}
	return 0;
}

LEAVE(migrate_device_pfns)
{
	DEVICE_LEAVE(PROBE_migrate_device_pfns);
	return 0;
}

ENTER(migrate_device_finalize)
{
	if (current_passes(CURRENT_TASK(ctx)))
		DEVICE_ENTER(PROBE_migrate_device_finalize);
	return 0;
}

LEAVE(migrate_device_finalize)
{
	DEVICE_LEAVE(PROBE_migrate_device_finalize);
	return 0;
}
