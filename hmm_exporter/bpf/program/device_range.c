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

/* `pfn` is the first page of the range: it says whose range it is. */
INLINE void device_range(u8 function, u64 pfn, u64 pages)
{
	struct device_range *row = device_range_row(function, device_of(pfn));
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
		device_range(DEVICE_FUNCTION_migrate_device_range, ARGUMENT_2(ctx), ARGUMENT_3(ctx));
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
		u64 pfn = 0;

#if PAGES
		probe_read(&pfn, 8, (void *)ARGUMENT_1(ctx)); /* frames here, entries when it returns */
#endif
		device_range(DEVICE_FUNCTION_migrate_device_pfns, pfn, ARGUMENT_2(ctx));
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

#if PAGES && defined(TARGET_migrate_device_pages)
ENTER(migrate_device_pages)
{
	if (!current_passes(CURRENT_TASK(ctx)))
		return 0;
	struct thread *thread = thread_enter(PROBE_migrate_device_pages);

	if (!thread)
		return 0;
	thread->device_src = ARGUMENT_1(ctx);
	thread->device_dst = ARGUMENT_2(ctx);
	thread->device_entries = ARGUMENT_3(ctx);
	return 0;
}

/* Only what left a device: the same function moves nothing else. */
LEAVE(migrate_device_pages)
{
	struct thread *thread = thread_leave(PROBE_migrate_device_pages);

	if (!thread)
		return 0;
	/* Between its commit and its end, a migration of this thread needs what it has read of its own pages. */
	if (thread->inside & IN_MIGRATION && thread->migration.committed) {
		count_untracked(PROBE_migrate_device_pages);
		return 0;
	}
	thread->walk.mm = thread->walk.address = 0;
	walk_arrays(&thread->walk, thread->device_src, thread->device_dst, thread->device_entries);
	if (thread->walk.unreadable || thread->device_entries > MOST_ENTRIES)
		count_untracked(PROBE_migrate_device_pages);
	struct device *row = device_row(device_of(thread->walk.src_pfn));

	if (row)
		add_pages(&row->range_moved_bytes, thread->walk.moved[DIRECTION_device_to_host] +
							   thread->walk.moved[DIRECTION_device_to_device]);
	thread_done(thread);
	return 0;
}
#endif
