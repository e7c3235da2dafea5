/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * __mmu_notifier_invalidate_range_start, for the two events that HMM sends. It runs for every
 * munmap and mprotect of any process with any notifier (KVM, RDMA, SVA), so the event comes first.
 */

ENTER(__mmu_notifier_invalidate_range_start)
{
	u64 range = ARGUMENT_1(ctx);
	u32 notified = READ_32(range, mmu_notifier_range_event);
	u8 event;

	if (notified == MMU_NOTIFY_MIGRATE)
		event = INVALIDATION_migrate;
	else if (notified == MMU_NOTIFY_EXCLUSIVE)
		event = INVALIDATION_exclusive;
	else
		return 0;
	struct process process = {};

	if (!process_of(READ_64(range, mmu_notifier_range_mm), CURRENT_TASK(ctx), &process))
		return 0;
	u64 bytes = READ_64(range, mmu_notifier_range_end) - READ_64(range, mmu_notifier_range_start);
	struct invalidation *row = invalidation_row(event);

	if (row) {
		add(&row->calls, 1);
		add(&row->bytes, bytes);
		observe_bytes(row->size, bytes);
	}
	struct process_counters *who = process_row_of(ctx, process.comm);

	if (who)
		add(&who->invalidations, 1);
	return 0;
}
