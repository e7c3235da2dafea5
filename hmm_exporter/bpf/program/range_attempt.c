/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One walk of a range, and why it ended in EBUSY. Each hmm_range_fault is one to 7.2; from 7.3 on
 * both functions walk in the static hmm_range_fault_locked, the unlocked one again and again.
 */

/* Faults that a task has handled, in whosever memory (mm_account_fault, mm/memory.c). */
INLINE u64 faults_of(u64 task)
{
	return READ_64(task, task_struct_min_flt) + READ_64(task, task_struct_maj_flt);
}

INLINE void attempt_enter(struct thread *thread, u64 task, u64 locked)
{
	thread->range_fault.task = task;
	thread->range_fault.faults = faults_of(task);
	thread->range_fault.locked = locked;
}

/*
 * The range was invalidated: by the attempt's own fault (it broke copy-on-write, or brought the page
 * from another device), or by somebody else. Or, from 7.3 on, its fault gave mmap_lock away: that is
 * progress and no race.
 */
INLINE void book_ebusy(struct range_attempt *row, struct thread *thread, u64 task)
{
	u8 kept = 1;

#if PAGES
	if (thread->range_fault.locked)
		probe_read(&kept, 1, (void *)thread->range_fault.locked);
#endif
	if (!kept)
		add(&row->lock_dropped, 1);
	else if (faults_of(task) != thread->range_fault.faults)
		add(&row->own_fault, 1);
	else
		add(&row->raced, 1);
}

INLINE void attempt_leave(void *ctx, struct thread *thread, s32 result, u64 task)
{
	struct range_attempt_key key = {};
	struct range_attempt *row;

	key.ops = thread->range_fault.ops;
	row = range_attempt_row(ctx, &key);
	if (!row)
		return;
	add(&row->attempts, 1);
	if (result == -EBUSY)
		book_ebusy(row, thread, task);
}

#ifdef TARGET_hmm_range_fault_locked
/* Its caller has entered already, and made the row. */
ENTER(hmm_range_fault_locked)
{
	u32 id = thread_id();
	struct thread *thread = thread_map.lookup(&id);

	if (!thread || !(thread->inside & RANGE_FAULT_BITS))
		return 0;
	thread->inside |= PROBE_BIT(PROBE_hmm_range_fault_locked);
	count_entry(PROBE_hmm_range_fault_locked);
	attempt_enter(thread, CURRENT_TASK(ctx), ARGUMENT_2(ctx));
	return 0;
}

LEAVE(hmm_range_fault_locked)
{
	struct thread *thread = thread_leave(PROBE_hmm_range_fault_locked);

	if (thread)
		attempt_leave(ctx, thread, (s32)RESULT(ctx, hmm_range_fault_locked),
			      KEPT_TASK(thread->range_fault.task));
	return 0;
}
#endif
