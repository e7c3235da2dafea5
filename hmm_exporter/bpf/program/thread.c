/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a thread is inside of: one row a thread from the first HMM function it enters to the last
 * one it leaves. Only its own thread writes a row; the daemon removes those that grew too old.
 */

/* `inside` has a bit for each probe whose function the thread is in, and this one. */
#define IN_MIGRATION (1ULL << 63) /* from migrate_vma_setup's entry to migrate_vma_finalize's return */

struct thread {
	u64 inside; /* read by the daemon: first two words */
	u64 since;  /* ktime of the latest entry */

	struct {
		u64 args;       /* the struct migrate_vma; 0 when none is in flight */
		u64 owner;      /* as admitted */
		u64 comm[3];    /* as admitted */
		u64 mm;
		u64 start;
		u64 bytes;
		u64 npages;
		u64 started;    /* setup's entry */
		u64 collected;  /* setup's return */
		u64 pages;      /* migrate_vma_pages' entry, 0 if it never ran */
		u64 committed;  /* its return, 0 if that was not seen */
		u64 finalizing; /* finalize's entry */
		/* In pages: to be unmapped, as migrate_device_unmap found it; what it left; what of that has a page. */
		u64 to_unmap;
		u64 selected;
		u64 has_source;
		u64 unread;
		u64 src_pfn; /* the first source on a device */
		u8 class;
		u8 trigger;
	} migration;

	struct {
		u64 started;
		u64 ops; /* as admitted */
		u64 comm[3];
		u64 task; /* that acts, and its faults before the attempt */
		u64 faults;
		u64 locked; /* bool *, whether mmap_lock was kept */
		u8 intent;
	} range_fault;

	u64 device_src; /* the arrays given to migrate_device_pages */
	u64 device_dst;
	u64 device_entries;
	u64 notifier_ops;
	u64 huge_fault_comm[3];
	struct walk walk; /* valid from migrate_vma_pages' return to the end of the migration */
};

BPF_TABLE("hash", u32, struct thread, thread_map, 1);

#define PROBE_BIT(probe) (1ULL << (probe))
#define RANGE_FAULT_BITS (PROBE_BIT(PROBE_hmm_range_fault) | PROBE_BIT(PROBE_hmm_range_fault_unlocked_timeout))
/* Inside one of these, a fault on device memory is somebody's wish and no CPU's. */
#define NESTING (RANGE_FAULT_BITS | PROBE_BIT(PROBE_make_device_exclusive))

/*
 * All that a migration sets. They go together: a return that was lost leaves its bit behind, and
 * the next migration of the thread must not find it.
 */
#define MIGRATION_BITS (IN_MIGRATION | PROBE_BIT(PROBE_migrate_vma_setup) | PROBE_BIT(PROBE_migrate_vma_pages) | \
			PROBE_BIT(PROBE_migrate_vma_finalize))

INLINE u32 thread_id(void)
{
	return (u32)get_current_pid_tgid();
}

/*
 * Return probes get lost when too many threads sleep in one function. fexit does not, but is skipped,
 * as fentry is, while the same program is preempted on its CPU; the kernel counts that itself
 * (recursion_misses), so that only return probes need their entries and returns counted.
 */
INLINE void count_entry(u32 probe)
{
#ifndef BUILD_FENTRY
	struct probe_call *row = probe_call_row(probe);

	if (row)
		add(&row->entered, 1);
#endif
}

INLINE void count_return(u32 probe)
{
#ifndef BUILD_FENTRY
	struct probe_call *row = probe_call_row(probe);

	if (row)
		add(&row->returned, 1);
#endif
}

/* A call of which not all is known. */
INLINE void count_untracked(u32 probe)
{
	struct probe_call *row = probe_call_row(probe);

	if (row)
		add(&row->untracked, 1);
}

/* The row of this thread, made if need be. NULL when the table is full: then that is counted. */
INLINE struct thread *thread_enter(u32 probe)
{
	u32 id = thread_id();
	struct thread *thread = thread_map.lookup(&id);

	if (!thread) {
		struct zero *blank = zero_row();

		if (blank && !thread_map.insert(&id, (struct thread *)blank))
			thread = thread_map.lookup(&id);
	}
	if (!thread) {
		count_untracked(probe);
		return NULL;
	}
	thread->inside |= PROBE_BIT(probe);
	thread->since = ktime_get_ns();
	count_entry(probe);
	return thread;
}

/* The row of this thread if it is inside of `probe`; its bit is cleared. End with thread_done(). */
INLINE struct thread *thread_leave(u32 probe)
{
	u32 id = thread_id();
	struct thread *thread = thread_map.lookup(&id);

	if (!thread || !(thread->inside & PROBE_BIT(probe)))
		return NULL;
	thread->inside &= ~PROBE_BIT(probe);
	count_return(probe);
	return thread;
}

/* After the last use of the row: it goes when the thread is inside of nothing any more. */
INLINE void thread_done(struct thread *thread)
{
	u32 id = thread_id();

	if (!thread->inside)
		thread_map.delete(&id); /* fails only if the daemon removed it meanwhile, which is as well */
}
