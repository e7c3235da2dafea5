/* SPDX-License-Identifier: GPL-2.0-only */
/* What several subjects book: a run, an event without labels, a failure, a process's counters. */

INLINE void count_run(u32 probe)
{
	struct probe_call *row = probe_call_row(probe);

	if (row)
		add(&row->runs, 1);
}

INLINE void count_event(u8 event)
{
	struct event *row = event_row(event);

	if (row)
		add(&row->calls, 1);
}

/* `subject` is the driver's ops as admitted, or 0. */
INLINE void failed(void *ctx, u8 function, u64 subject, u16 errno)
{
	struct failure_key key = {};
	struct failure *row;

	key.subject = subject;
	key.function = function;
	key.errno = errno;
	row = failure_row(ctx, &key);
	if (row)
		add(&row->calls, 1);
}

INLINE struct process_counters *process_row_of(void *ctx, u64 *comm)
{
	struct process_key key = {};

	copy_comm(key.comm, comm);
	return process_row(ctx, &key);
}

/* 0 where `b` is larger. */
INLINE u64 difference(u64 a, u64 b)
{
	return a > b ? a - b : 0;
}

INLINE void add_pages(u64 *counter, u64 pages)
{
	if (pages)
		add(counter, pages * PAGE_SIZE);
}
