/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * make_device_exclusive (to 6.14 make_device_exclusive_range): a driver takes pages away from the
 * CPU for its atomics; restore_exclusive_pte: they come back, by a CPU's access, a fork, or the
 * driver's own next fault.
 */

#ifdef TARGET_make_device_exclusive
ENTER(make_device_exclusive)
{
	struct process process = {};

	if (!process_of(ARGUMENT_1(ctx), CURRENT_TASK(ctx), &process))
		return 0;
	count_event(EVENT_device_exclusive);
	struct process_counters *who = process_row_of(ctx, process.comm);

	if (who)
		add(&who->device_exclusive, 1);
	thread_enter(PROBE_make_device_exclusive);
	return 0;
}

LEAVE(make_device_exclusive)
{
	struct thread *thread = thread_leave(PROBE_make_device_exclusive);

	if (!thread)
		return 0;
	/* 6.15 made it return a page or an ERR_PTR; before, an int: pages found, or an error. */
#ifdef FUNCTION_make_device_exclusive
	s64 result = RESULT(ctx, make_device_exclusive);
#else
	s64 result = (s32)RESULT(ctx, make_device_exclusive);
#endif
	/* An unsigned comparison, as in IS_ERR_VALUE: a page's address is negative, too. */
	if ((u64)result >= (u64)-4095LL)
		failed(ctx, FAILURE_device_exclusive, 0, -result);
	thread_done(thread);
	return 0;
}
#endif

#ifdef TARGET_restore_exclusive_pte
ENTER(restore_exclusive_pte)
{
	struct process process = {};
	u64 mm = READ_64(ARGUMENT_1(ctx), vm_area_struct_vm_mm);

	if (!process_of(mm, CURRENT_TASK(ctx), &process))
		return 0;
	count_event(EVENT_device_exclusive_restore);
	struct process_counters *who = process_row_of(ctx, process.comm);

	if (who)
		add(&who->device_exclusive_restores, 1);
	return 0;
}
#endif
