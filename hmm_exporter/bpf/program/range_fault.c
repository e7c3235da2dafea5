/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hmm_range_fault and hmm_range_fault_unlocked_timeout: a device asks what the CPU has mapped.
 * The second one (7.3) is not built on the first, so that no call is counted twice.
 */

/* A page is faulted in if default_flags say so, or its own request does under pfn_flags_mask. */
INLINE u8 intent_of(u64 default_flags, u64 mask)
{
	if ((default_flags & HMM_PFN_REQ_FAULT) && (default_flags & HMM_PFN_REQ_WRITE))
		return INTENT_write;
	if (mask & (HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE))
		return INTENT_per_page;
	return default_flags & HMM_PFN_REQ_FAULT ? INTENT_read : INTENT_snapshot;
}

INLINE struct range_fault *range_fault_of(void *ctx, u64 *ops, u8 function, u8 intent)
{
	struct range_fault_key key = {};
	struct range_fault *row;

	key.ops = *ops;
	key.function = function;
	key.intent = intent;
	row = range_fault_row(ctx, &key);
	*ops = key.ops; /* as admitted */
	return row;
}

INLINE void range_fault_enter(void *ctx, u64 range, u64 task, u32 probe, u8 function)
{
	SNAPSHOT(request, hmm_range, range);
	u64 notifier = FIELD_64(request, hmm_range_notifier);
	u64 ops = READ_64(notifier, mmu_interval_notifier_ops);
	u64 start = FIELD_64(request, hmm_range_start), end = FIELD_64(request, hmm_range_end);
	u64 bytes = end > start ? end - start : 0;
	u8 intent = intent_of(FIELD_64(request, hmm_range_default_flags), FIELD_64(request, hmm_range_pfn_flags_mask));
	struct process process = {};

	if (!process_of(READ_64(notifier, mmu_interval_notifier_mm), task, &process))
		return;
	struct range_fault *row = range_fault_of(ctx, &ops, function, intent);

	if (row) {
		add(&row->calls, 1);
		add(&row->bytes, bytes);
		observe_bytes(row->size, bytes);
	}
	struct process_counters *who = process_row_of(ctx, process.comm);

	if (who)
		add(&who->range_faults, 1);
	struct thread *thread = thread_enter(probe);

	if (!thread)
		return;
	thread->range_fault.ops = ops;
	thread->range_fault.intent = intent;
	copy_comm(thread->range_fault.comm, process.comm);
	thread->range_fault.started = thread->since;
#if !ATTEMPTS_IN_LOCKED
	attempt_enter(thread, task, 0);
#endif
}

INLINE void range_fault_failed(void *ctx, struct thread *thread, u8 function, u8 failure, u16 errno)
{
	struct failure_key key = {};
	struct process_failure_key who = {};

	key.subject = thread->range_fault.ops;
	key.function = failure;
	key.errno = errno;
	struct failure *row = failure_row(ctx, &key);

	if (row)
		add(&row->calls, 1);
	copy_comm(who.comm, thread->range_fault.comm);
	who.function = FAILURE_range_fault; /* both functions: one metric, which has no such label */
	who.errno = errno;
	struct process_failure *process = process_failure_row(ctx, &who);

	if (process)
		add(&process->calls, 1);
	if (errno != EBUSY)
		return;
	struct ebusy_key caller = {};

	caller.ops = thread->range_fault.ops;
	caller.function = function;
	caller.stack = stack_of(ctx);
	struct ebusy *stack = ebusy_row(ctx, &caller);

	if (stack)
		add(&stack->calls, 1);
}

INLINE void range_fault_leave(void *ctx, s32 result, u32 probe, u8 function, u8 failure)
{
	u64 now = ktime_get_ns();
	struct thread *thread = thread_leave(probe);

	if (!thread)
		return;
	u64 ops = thread->range_fault.ops, duration = now - thread->range_fault.started;
	struct range_fault *row = range_fault_of(ctx, &ops, function, thread->range_fault.intent);

	if (row) {
		add(&row->duration_ns, duration);
		observe_ns(row->duration, duration);
	}
#if !ATTEMPTS_IN_LOCKED
	attempt_leave(ctx, thread, result, KEPT_TASK(thread->range_fault.task));
#endif
	if (result)
		range_fault_failed(ctx, thread, function, failure, -result);
	thread_done(thread);
}

#ifdef TARGET_hmm_range_fault
ENTER(hmm_range_fault)
{
	range_fault_enter(ctx, ARGUMENT_1(ctx), CURRENT_TASK(ctx), PROBE_hmm_range_fault,
			  RANGE_FUNCTION_hmm_range_fault);
	return 0;
}

LEAVE(hmm_range_fault)
{
	range_fault_leave(ctx, (s32)RESULT(ctx, hmm_range_fault), PROBE_hmm_range_fault,
			  RANGE_FUNCTION_hmm_range_fault, FAILURE_range_fault);
	return 0;
}
#endif

#ifdef TARGET_hmm_range_fault_unlocked_timeout
ENTER(hmm_range_fault_unlocked_timeout)
{
	range_fault_enter(ctx, ARGUMENT_1(ctx), CURRENT_TASK(ctx), PROBE_hmm_range_fault_unlocked_timeout,
			  RANGE_FUNCTION_hmm_range_fault_unlocked_timeout);
	return 0;
}

LEAVE(hmm_range_fault_unlocked_timeout)
{
	range_fault_leave(ctx, (s32)RESULT(ctx, hmm_range_fault_unlocked_timeout),
			  PROBE_hmm_range_fault_unlocked_timeout,
			  RANGE_FUNCTION_hmm_range_fault_unlocked_timeout, FAILURE_range_fault_unlocked);
	return 0;
}
#endif
