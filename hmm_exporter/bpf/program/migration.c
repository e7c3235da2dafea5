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

INLINE struct process_migration *process_migration_of(void *ctx, u64 *comm, u64 owner, u8 class)
{
	struct process_migration_key key = {};
	struct process_migration *row;

	key.comm[0] = comm[0];
	key.comm[1] = comm[1];
	key.owner = owner;
	key.class = class;
	row = process_migration_row(ctx, &key);
	comm[0] = key.comm[0]; /* as admitted */
	comm[1] = key.comm[1];
	return row;
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
	thread->migration.comm[0] = process.comm[0];
	thread->migration.comm[1] = process.comm[1];
	thread->migration.bytes = end > start ? end - start : 0;
	thread->migration.class = key.class;
	thread->migration.trigger = key.trigger;
	thread->migration.collected = 0;
	thread->migration.pages = 0;
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
	who.comm[0] = thread->migration.comm[0];
	who.comm[1] = thread->migration.comm[1];
	who.function = FAILURE_migration;
	who.class = thread->migration.class;
	who.errno = errno;
	struct process_failure *process = process_failure_row(ctx, &who);

	if (process)
		add(&process->calls, 1);
}

INLINE struct migration *migration_of(void *ctx, struct thread *thread)
{
	struct migration_key key = {};

	key.owner = thread->migration.owner;
	key.class = thread->migration.class;
	key.trigger = thread->migration.trigger;
	return migration_row(ctx, &key);
}

LEAVE(migrate_vma_setup)
{
	u64 now = ktime_get_ns();
	struct thread *thread = thread_leave(PROBE_migrate_vma_setup);

	if (!thread)
		return 0;
	s32 result = (s32)RESULT(ctx, migrate_vma_setup);

	if (result) {
		setup_failed(ctx, thread, -result);
		thread->inside &= ~MIGRATION_BITS;
		thread_done(thread);
		return 0;
	}
	u64 bytes = thread->migration.bytes;
	struct migration *row = migration_of(ctx, thread);
	struct process_migration *who = process_migration_of(ctx, thread->migration.comm, thread->migration.owner,
							     thread->migration.class);
	/* The kernel replaces cpages after it unmapped: here it is the number of entries collected. */
	u64 collected = READ_64(KEPT_1(ctx, thread->migration.args), migrate_vma_cpages);

	if (who)
		add(&who->requested_bytes, bytes);
	if (row) {
		add(&row->requested_bytes, bytes);
		observe_bytes(row->request_size, bytes);
		if (!collected)
			add(&row->empty, 1);
	}
	thread->migration.collected = now;
	if (!collected) {
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
	thread->migration.committed = thread->migration.pages;
	return 0;
}

LEAVE(migrate_vma_pages)
{
	struct thread *thread = thread_leave(PROBE_migrate_vma_pages);

	if (thread)
		thread->migration.committed = ktime_get_ns();
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
INLINE void book_phases(struct thread *thread, struct migration *row, u64 now)
{
	if (!thread->migration.collected) /* setup's return was lost: nobody knows where it ended */
		return;
	BOOK_PHASE(thread, row, setup, thread->migration.started, thread->migration.collected);
	if (thread->migration.pages) {
		BOOK_PHASE(thread, row, driver_prepare, thread->migration.collected, thread->migration.pages);
		BOOK_PHASE(thread, row, commit, thread->migration.pages, thread->migration.committed);
		BOOK_PHASE(thread, row, driver_complete, thread->migration.committed, thread->migration.finalizing);
	}
	BOOK_PHASE(thread, row, finalize, thread->migration.finalizing, now);
}

LEAVE(migrate_vma_finalize)
{
	u64 now = ktime_get_ns();
	struct thread *thread = thread_leave(PROBE_migrate_vma_finalize);

	if (!thread)
		return 0;
	if (!(thread->inside & IN_MIGRATION)) {
		thread_done(thread);
		return 0;
	}
	u64 duration = now - thread->migration.started;
	struct migration *row = migration_of(ctx, thread);

	if (row) {
		add(&row->completed, 1);
		add(&row->duration_ns, duration);
		observe_ns(row->duration, duration);
		book_phases(thread, row, now);
	}
	if (thread->migration.trigger == TRIGGER_cpu_fault) {
		struct process_counters *process = process_row_of(ctx, thread->migration.comm);

		if (process)
			add(&process->fault_stall_ns, duration);
	}
	thread->inside &= ~MIGRATION_BITS;
	thread_done(thread);
	return 0;
}
