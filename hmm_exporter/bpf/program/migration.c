/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * migrate_vma_setup, _pages, _finalize: one migration, in one thread, from the first's entry to
 * the last's return. Drivers that collected nothing may or may not finalize (amdkfd, nouveau and
 * drm_pagemap do not), so a migration ends at setup's return when that failed or collected nothing.
 */

INLINE u8 class_of(u64 flags, u64 fault_page)
{
	if (fault_page)
		return CLASS_fault_back;
	if (flags & MIGRATE_VMA_SELECT_SYSTEM)
		return CLASS_prefetch;
	if (flags & (MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT))
		return CLASS_evict;
	return CLASS_unclassified;
}

INLINE u8 trigger_of(u64 inside, u8 class, u64 mm, u64 task)
{
	if (inside & NESTING)
		return TRIGGER_nested;
	if (READ_32(task, task_struct_flags) & PF_KTHREAD)
		return TRIGGER_kthread;
	if (class == CLASS_fault_back && mm == READ_64(task, task_struct_mm))
		return TRIGGER_cpu_fault;
	return TRIGGER_syscall;
}

INLINE void migration_abandoned(void)
{
	struct loss *row = loss_row(LOSS_migration_abandoned);

	if (row)
		add(&row->events, 1);
}

/*
 * A migration of somebody whom the filter leaves out begins in this thread. One that is still in
 * flight is over; its struct was on the stack, where the new one may well have the same address.
 */
INLINE void superseded(void)
{
	u32 id = thread_id();
	struct thread *thread = thread_map.lookup(&id);

	if (!thread || !(thread->inside & IN_MIGRATION))
		return;
	migration_abandoned();
	thread->inside &= ~MIGRATION_BITS;
	thread_done(thread);
}

ENTER(migrate_vma_setup)
{
	u64 args = ARGUMENT_1(ctx), task = CURRENT_TASK(ctx);
	SNAPSHOT(request, migrate_vma, args);
	u64 mm = READ_64(FIELD_64(request, migrate_vma_vma), vm_area_struct_vm_mm);
	u64 start = FIELD_64(request, migrate_vma_start) & PAGE_MASK;
	u64 end = FIELD_64(request, migrate_vma_end) & PAGE_MASK;
	struct migration_key key = {};
	struct process process = {};

	if (!process_of(mm, task, &process)) {
		superseded();
		return 0;
	}
	struct thread *thread = thread_enter(PROBE_migrate_vma_setup);

	key.owner = FIELD_64(request, migrate_vma_pgmap_owner);
	key.class = class_of(FIELD_64(request, migrate_vma_flags), FIELD_64(request, migrate_vma_fault_page));
	key.trigger = trigger_of(thread ? thread->inside : 0, key.class, mm, task);
	key.device = DEVICE_none; /* it is the pages that say which, later */

	struct migration *row = migration_row(ctx, &key);

	if (row)
		add(&row->started, 1);
	struct process_migration *who = process_migration_of(ctx, process.comm, key.owner, key.class);

	if (who)
		add(&who->started, 1);
	if (!thread) {
		migration_abandoned();
		return 0;
	}
	if (thread->inside & IN_MIGRATION)
		migration_abandoned();
	thread->inside &= ~(PROBE_BIT(PROBE_migrate_vma_pages) | PROBE_BIT(PROBE_migrate_vma_finalize));
	thread->inside |= IN_MIGRATION;
	thread->migration.args = args;
	thread->migration.owner = key.owner;
	copy_comm(thread->migration.comm, process.comm);
	thread->migration.mm = mm;
	thread->migration.start = start;
	thread->migration.bytes = end > start ? end - start : 0;
	thread->migration.class = key.class;
	thread->migration.trigger = key.trigger;
	thread->migration.collected = 0;
	thread->migration.pages = 0;
	thread->migration.committed = 0;
	thread->migration.to_unmap = 0;
	thread->migration.started = thread->since;
	return 0;
}

INLINE void setup_failed(void *ctx, struct thread *thread, u16 errno)
{
	struct failure_key key = {};
	struct process_failure_key who = {};

	key.subject = thread->migration.owner;
	key.function = FAILURE_migration;
	key.class = thread->migration.class;
	key.trigger = thread->migration.trigger;
	key.errno = errno;
	struct failure *row = failure_row(ctx, &key);

	if (row)
		add(&row->calls, 1);
	copy_comm(who.comm, thread->migration.comm);
	who.function = FAILURE_migration;
	who.class = thread->migration.class;
	who.errno = errno;
	struct process_failure *process = process_failure_row(ctx, &who);

	if (process)
		add(&process->calls, 1);
}

/*
 * What migrate_device_unmap is about to unmap. What it refuses (pinned, locked) it takes out of the
 * array, so that afterwards nobody can tell it from what was never selected. cpages has the number
 * of entries at this moment (mm/migrate_device.c:670); they are pages where there are no huge ones.
 */
#if PAGES && defined(TARGET_migrate_device_unmap)
ENTER(migrate_device_unmap)
{
	u32 id = thread_id();
	struct thread *thread = thread_map.lookup(&id);
	u64 entries = ARGUMENT_2(ctx), cpages = 0;

	if (!thread || !(thread->inside & PROBE_BIT(PROBE_migrate_vma_setup)))
		return 0;
	if (entries <= MOST_ENTRIES && (entries < HUGE_PAGES || !MIGRATE_VMA_SELECT_COMPOUND)) {
		probe_read(&cpages, 8, (void *)(thread->migration.args + OFFSET_migrate_vma_cpages));
		thread->migration.to_unmap = cpages;
		return 0;
	}
	thread->walk.mm = 0;
	walk_arrays(&thread->walk, ARGUMENT_1(ctx), 0, entries);
	thread->migration.to_unmap = thread->walk.selected;
	return 0;
}
#endif

/* What was selected, and is unmapped now. The kernel's cpages counts entries, holes among them. */
INLINE void read_selection(struct thread *thread, u64 src, u64 npages)
{
	thread->migration.npages = npages;
	thread->migration.selected = thread->migration.has_source = 0;
	thread->migration.src_pfn = thread->migration.unread = 0;
#if PAGES
	thread->walk.mm = 0;
	walk_arrays(&thread->walk, src, 0, npages);
	thread->migration.selected = thread->walk.selected;
	thread->migration.has_source = thread->walk.collected;
	thread->migration.src_pfn = thread->walk.src_pfn;
	thread->migration.unread = thread->walk.unreadable + difference(npages, MOST_ENTRIES);
#endif
}

/*
 * Where a return was skipped, its bit waits for the thread's next call, and should that one's entry be
 * skipped, too, it is another migration that returns. fexit can tell them apart.
 */
INLINE struct thread *migration_leave(void *context, u32 probe)
{
	u64 *ctx = context;
	struct thread *thread = thread_leave(probe);

	return thread && KEPT_1(ctx, thread->migration.args) == thread->migration.args ? thread : NULL;
}

LEAVE(migrate_vma_setup)
{
	u64 now = ktime_get_ns();
	struct thread *thread = migration_leave(ctx, PROBE_migrate_vma_setup);

	if (!thread)
		return 0;
	s32 result = (s32)RESULT(ctx, migrate_vma_setup);

	if (result) {
		setup_failed(ctx, thread, -result);
		thread->inside &= ~MIGRATION_BITS;
		thread_done(thread);
		return 0;
	}
	SNAPSHOT(args, migrate_vma, KEPT_1(ctx, thread->migration.args));
	/* The kernel replaces cpages after it unmapped: here it is the number of entries left. */
	u64 left = FIELD_64(args, migrate_vma_cpages);

	thread->migration.collected = now;
	if (left) {
		read_selection(thread, FIELD_64(args, migrate_vma_src), FIELD_64(args, migrate_vma_npages));
	} else {
		book_empty(ctx, thread);
		thread->inside &= ~MIGRATION_BITS;
		thread_done(thread);
	}
	return 0;
}

/* The thread's row, if `args` is the migration that it has in flight. */
INLINE struct thread *in_flight(u64 args)
{
	u32 id = thread_id();
	struct thread *thread = thread_map.lookup(&id);

	if (!thread || !(thread->inside & IN_MIGRATION) || thread->migration.args != args)
		return NULL;
	return thread;
}

ENTER(migrate_vma_pages)
{
	struct thread *thread = in_flight(ARGUMENT_1(ctx));

	if (!thread)
		return 0;
	thread->inside |= PROBE_BIT(PROBE_migrate_vma_pages);
	count_entry(PROBE_migrate_vma_pages);
	thread->migration.pages = ktime_get_ns();
	thread->migration.committed = 0;
	return 0;
}

LEAVE(migrate_vma_pages)
{
	u64 now = ktime_get_ns();
	struct thread *thread = migration_leave(ctx, PROBE_migrate_vma_pages);

	if (!thread)
		return 0;
	thread->migration.committed = now;
#if PAGES
	SNAPSHOT(args, migrate_vma, KEPT_1(ctx, thread->migration.args));

	thread->walk.mm = thread->migration.mm;
	thread->walk.address = thread->migration.start;
	thread->walk.now = now;
	thread->walk.cpu_fault = thread->migration.trigger == TRIGGER_cpu_fault;
	walk_arrays(&thread->walk, FIELD_64(args, migrate_vma_src), FIELD_64(args, migrate_vma_dst),
		    thread->migration.npages);
#endif
	return 0;
}

ENTER(migrate_vma_finalize)
{
	struct thread *thread = in_flight(ARGUMENT_1(ctx));

	if (!thread)
		return 0;
	thread->inside |= PROBE_BIT(PROBE_migrate_vma_finalize);
	count_entry(PROBE_migrate_vma_finalize);
	thread->migration.finalizing = ktime_get_ns();
	return 0;
}

LEAVE(migrate_vma_finalize)
{
	u64 now = ktime_get_ns();
	struct thread *thread = migration_leave(ctx, PROBE_migrate_vma_finalize);

	if (!thread)
		return 0;
	if (!(thread->inside & IN_MIGRATION)) {
		thread_done(thread);
		return 0;
	}
	/* Without setup's return, too, nobody knows what it collected. */
	if (is_of_one_call(thread))
		book_times(thread, book_completed(ctx, thread, now), now);
	else
		migration_abandoned();
	thread->inside &= ~MIGRATION_BITS;
	thread_done(thread);
	return 0;
}
