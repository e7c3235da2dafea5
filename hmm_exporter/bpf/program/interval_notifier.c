/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mmu_interval_notifier_insert, _insert_locked and _remove: a driver begins and ends to mirror a
 * range. The two inserts share a static body, so that neither call is counted twice.
 */

INLINE struct interval_notifier *interval_notifier_of(void *ctx, u64 *ops)
{
	struct interval_notifier_key key = {};
	struct interval_notifier *row;

	key.ops = *ops;
	row = interval_notifier_row(ctx, &key);
	*ops = key.ops; /* as admitted */
	return row;
}

INLINE void insert_enter(void *ctx, u64 mm, u64 ops, u64 task, u32 probe)
{
	struct process process = {};

	if (!process_of(mm, task, &process))
		return;
	struct interval_notifier *row = interval_notifier_of(ctx, &ops);

	if (row)
		add(&row->inserts, 1);
	struct process_counters *who = process_row_of(ctx, process.comm);

	if (who)
		add(&who->interval_notifier_inserts, 1);
	struct thread *thread = thread_enter(probe);

	if (thread)
		thread->notifier_ops = ops;
}

INLINE void insert_leave(void *ctx, s32 result, u32 probe)
{
	struct thread *thread = thread_leave(probe);

	if (!thread)
		return;
	if (result)
		failed(ctx, FAILURE_interval_notifier_insert, thread->notifier_ops, -result);
	thread_done(thread);
}

#ifdef TARGET_mmu_interval_notifier_insert
ENTER(mmu_interval_notifier_insert)
{
	insert_enter(ctx, ARGUMENT_2(ctx), ARGUMENT_5(ctx), CURRENT_TASK(ctx), PROBE_mmu_interval_notifier_insert);
	return 0;
}

LEAVE(mmu_interval_notifier_insert)
{
	insert_leave(ctx, (s32)RESULT(ctx, mmu_interval_notifier_insert), PROBE_mmu_interval_notifier_insert);
	return 0;
}
#endif

#ifdef TARGET_mmu_interval_notifier_insert_locked
ENTER(mmu_interval_notifier_insert_locked)
{
	insert_enter(ctx, ARGUMENT_2(ctx), ARGUMENT_5(ctx), CURRENT_TASK(ctx),
		     PROBE_mmu_interval_notifier_insert_locked);
	return 0;
}

LEAVE(mmu_interval_notifier_insert_locked)
{
	insert_leave(ctx, (s32)RESULT(ctx, mmu_interval_notifier_insert_locked),
		     PROBE_mmu_interval_notifier_insert_locked);
	return 0;
}
#endif

#ifdef TARGET_mmu_interval_notifier_remove
ENTER(mmu_interval_notifier_remove)
{
	u64 subscription = ARGUMENT_1(ctx);
	u64 ops = READ_64(subscription, mmu_interval_notifier_ops);
	struct process process = {};

	if (!process_of(READ_64(subscription, mmu_interval_notifier_mm), CURRENT_TASK(ctx), &process))
		return 0;
	struct interval_notifier *row = interval_notifier_of(ctx, &ops);

	if (row)
		add(&row->removes, 1);
	struct process_counters *who = process_row_of(ctx, process.comm);

	if (who)
		add(&who->interval_notifier_removes, 1);
	return 0;
}
#endif
