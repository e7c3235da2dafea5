/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints migrate:set_migration_pte and remove_migration_pte. They fire for all page
 * migration (compaction, NUMA balancing, splitting a huge page), so the context tells ours apart.
 */

INLINE void migration_pte(u8 entry, u32 order)
{
	u32 id = thread_id();
	u8 context = thread_map.lookup(&id) ? CONTEXT_hmm : CONTEXT_other;
	struct migration_pte *row =
		migration_pte_row(entry, order < PTE_ORDERS ? order : PTE_ORDERS - 1, context);

	if (row)
		add(&row->entries, 1);
}

TRACEPOINT(set_migration_pte)
{
	if (TRACEPOINT_PASSES(ctx))
		migration_pte(ENTRY_set, (u32)TRACEPOINT_3(ctx));
	return 0;
}

TRACEPOINT(remove_migration_pte)
{
	if (TRACEPOINT_PASSES(ctx))
		migration_pte(ENTRY_removed, (u32)TRACEPOINT_3(ctx));
	return 0;
}
