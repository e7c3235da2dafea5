/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The end of a migration, in the books: all its bytes and times at once, so that requested =
 * moved + zero-filled + the sum of unmoved at every moment. Its beginning is migration.c's.
 */

INLINE struct process_migration *process_migration_of(void *ctx, u64 *comm, u64 owner, u8 class)
{
	struct process_migration_key key = {};
	struct process_migration *row;

	copy_comm(key.comm, comm);
	key.owner = owner;
	key.class = class;
	row = process_migration_row(ctx, &key);
	copy_comm(comm, key.comm); /* as admitted */
	return row;
}

/* Pages that were about to be unmapped. What was not seen to be is known by what is left of it. */
INLINE u64 pages_to_unmap(struct thread *thread)
{
	u64 selected = thread->migration.selected;

	return thread->migration.to_unmap > selected ? thread->migration.to_unmap : selected;
}

/*
 * What did not move, and why. Where migrate_vma_pages never ran, nothing that was selected had a
 * destination; where its return was not seen, nobody knows.
 */
INLINE void book_unmoved(struct thread *thread, struct migration *row, u64 arrived)
{
	u64 requested = thread->migration.bytes / PAGE_SIZE, selected = thread->migration.selected;
	u64 to_unmap = pages_to_unmap(thread);
	u64 unread = 0, refused = 0;

	if (thread->migration.committed) {
		unread = thread->walk.unreadable;
		refused = thread->walk.refused;
	} else if (thread->migration.pages) {
		unread = selected;
	}
	u64 no_destination = difference(selected, arrived + refused + unread);

	add_pages(&row->not_read_bytes, thread->migration.unread + unread);
	add_pages(&row->not_selected_bytes, difference(requested, thread->migration.unread + to_unmap));
	add_pages(&row->busy_bytes, to_unmap - selected);
	add_pages(&row->commit_failed_bytes, refused);
	add_pages(&row->no_destination_bytes, no_destination);
	if (to_unmap > selected || refused || no_destination)
		add(&row->partial, 1);
}

INLINE void book_moved(struct thread *thread, struct migration *row)
{
	u64 huge = 0;

#pragma unroll
	for (int i = 0; i < DIRECTION_COUNT; i++) {
		add_pages(&row->moved_bytes[i], thread->walk.moved[i]);
		add_pages(&row->moved_huge_bytes[i], thread->walk.moved_huge[i]);
		huge += thread->walk.moved_huge[i];
	}
	add_pages(&row->zero_filled_bytes, thread->walk.zero_filled);
	add_pages(&row->returned_bytes, thread->walk.returned);
	if (huge)
		add(&row->huge, 1);
}

INLINE u64 moved_pages(struct walk *walk)
{
	u64 pages = 0;

#pragma unroll
	for (int i = 0; i < DIRECTION_COUNT; i++)
		pages += walk->moved[i];
	return pages;
}

/* `stall_ns`: how long a CPU thread of the process has waited, at least. */
INLINE void book_process(void *ctx, struct thread *thread, int walked, u64 stall_ns)
{
	struct process_migration *who = process_migration_of(ctx, thread->migration.comm, thread->migration.owner,
							     thread->migration.class);

	if (!who)
		return;
	add(&who->requested_bytes, thread->migration.bytes);
	if (stall_ns)
		add(&who->fault_stall_ns, stall_ns);
	if (!walked)
		return;
#pragma unroll
	for (int i = 0; i < DIRECTION_COUNT; i++)
		add_pages(&who->moved_bytes[i], thread->walk.moved[i]);
	add_pages(&who->returned_bytes, thread->walk.returned);
}

INLINE struct migration_histogram *book_request(void *ctx, struct thread *thread)
{
	struct migration_histogram_key key = {};
	struct migration_histogram *row;

	key.owner = thread->migration.owner;
	key.class = thread->migration.class;
	row = migration_histogram_row(ctx, &key);
	if (row) {
		add(&row->requested_bytes, thread->migration.bytes);
		observe_bytes(row->request_size, thread->migration.bytes);
	}
	return row;
}

INLINE struct migration *ended_row(void *ctx, struct thread *thread, u8 device)
{
	struct migration_key key = {};
	struct migration *row;

	key.owner = thread->migration.owner;
	key.class = thread->migration.class;
	key.trigger = thread->migration.trigger;
	key.device = device;
	row = migration_row(ctx, &key);
	if (row)
		add(&row->requested_bytes, thread->migration.bytes);
	return row;
}

/* Nothing was left to migrate: it ends with setup. */
INLINE void book_empty(void *ctx, struct thread *thread)
{
	u64 requested = thread->migration.bytes / PAGE_SIZE, busy = thread->migration.to_unmap;
	struct migration *row = ended_row(ctx, thread, DEVICE_none);

	if (row) {
		add(&row->empty, 1);
#if PAGES
		add_pages(&row->busy_bytes, busy);
		add_pages(&row->not_selected_bytes, difference(requested, busy));
		if (busy)
			add(&row->partial, 1);
#endif
	}
	book_request(ctx, thread);
	book_process(ctx, thread, 0, 0);
}

/*
 * Whether times and pages fit together. Where the end of a migration was missed, and the beginning of the
 * thread's next one, too, they may be of both, and of arrays of two sizes.
 */
INLINE int is_of_one_call(struct thread *thread)
{
	u64 requested = thread->migration.bytes / PAGE_SIZE, selected = thread->migration.selected;
	u64 to_unmap = pages_to_unmap(thread);
	u64 committed = thread->migration.committed;
	struct walk *walk = &thread->walk;

	if (!thread->migration.collected || thread->migration.finalizing < thread->migration.collected)
		return 0;
	if (committed && (thread->migration.pages < thread->migration.collected ||
			  thread->migration.finalizing < committed))
		return 0;
#if PAGES
	if (thread->migration.unread + to_unmap > requested)
		return 0;
	if (committed && moved_pages(walk) + walk->zero_filled + walk->refused + walk->unreadable > selected)
		return 0;
#endif
	return 1;
}

/* It was finalized. What is booked of its sizes goes with its times: `histogram` has both. */
INLINE struct migration_histogram *book_completed(void *ctx, struct thread *thread, u64 now)
{
	u64 walked = PAGES && thread->migration.committed, moved = 0, filled = 0;

	if (walked) {
		moved = moved_pages(&thread->walk);
		filled = thread->walk.zero_filled;
	}
	struct migration *row = ended_row(ctx, thread, walked ? walked_device(&thread->walk)
							      : device_of(thread->migration.src_pfn));

	if (row) {
		add(&row->completed, 1);
#if PAGES
		add_pages(&row->collected_bytes, thread->migration.has_source);
		book_unmoved(thread, row, moved + filled);
#endif
		if (walked)
			book_moved(thread, row);
		if (walked && !moved && !filled)
			add(&row->aborted, 1);
	}
	struct migration_histogram *histogram = book_request(ctx, thread);

	if (histogram && moved) {
		add(&histogram->moved_bytes, moved * PAGE_SIZE);
		observe_bytes(histogram->moved_size, moved * PAGE_SIZE);
	}
	book_process(ctx, thread, walked,
		     thread->migration.trigger == TRIGGER_cpu_fault ? now - thread->migration.started : 0);
	return histogram;
}

#ifdef MIGRATION_PHASES
#define OBSERVE_PHASE(thread, phase, elapsed) do { \
	struct migration_phase *histogram = migration_phase_row((thread)->migration.class, phase); \
	if (histogram) { \
		add(&histogram->ns, elapsed); \
		observe_ns(histogram->duration, elapsed); \
	} \
} while (0)
#else
#define OBSERVE_PHASE(thread, phase, elapsed)
#endif

#define BOOK_PHASE(thread, row, phase, from, to) do { \
	u64 elapsed_ns = (to) - (from); \
	add(&(row)->phase##_ns, elapsed_ns); \
	OBSERVE_PHASE(thread, PHASE_##phase, elapsed_ns); \
} while (0)

/* Where pages never ran, the time between setup and finalize belongs to no phase. */
INLINE void book_phases(struct thread *thread, struct migration_histogram *row, u64 now)
{
	BOOK_PHASE(thread, row, setup, thread->migration.started, thread->migration.collected);
	if (thread->migration.committed) {
		BOOK_PHASE(thread, row, driver_prepare, thread->migration.collected, thread->migration.pages);
		BOOK_PHASE(thread, row, commit, thread->migration.pages, thread->migration.committed);
		BOOK_PHASE(thread, row, driver_complete, thread->migration.committed, thread->migration.finalizing);
	}
	BOOK_PHASE(thread, row, finalize, thread->migration.finalizing, now);
}

/* `row` may be NULL. */
INLINE void book_times(struct thread *thread, struct migration_histogram *row, u64 now)
{
	u64 duration = now - thread->migration.started;

	if (row) {
		add(&row->duration_ns, duration);
		observe_ns(row->duration, duration);
		book_phases(thread, row, now);
	}
}
