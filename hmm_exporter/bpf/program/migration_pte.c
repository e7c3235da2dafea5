/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints migrate:set_migration_pte and remove_migration_pte, thp:set_migration_pmd and
 * remove_migration_pmd. They fire for all page migration (compaction, NUMA balancing, splitting a
 * huge page), so the context tells ours apart.
 */

INLINE u8 context_of_thread(void)
{
	u32 id = thread_id();

	return thread_map.lookup(&id) ? CONTEXT_hmm : CONTEXT_other;
}

INLINE void migration_pte(u8 entry, u32 order)
{
	struct migration_pte *row =
		migration_pte_row(entry, order < PTE_ORDERS ? order : PTE_ORDERS - 1, context_of_thread());

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

INLINE void migration_pmd(u8 entry)
{
	struct migration_pmd *row = migration_pmd_row(entry, context_of_thread());

	if (row)
		add(&row->entries, 1);
}

TRACEPOINT(set_migration_pmd)
{
	if (TRACEPOINT_PASSES(ctx))
		migration_pmd(ENTRY_set);
	return 0;
}

TRACEPOINT(remove_migration_pmd)
{
	if (TRACEPOINT_PASSES(ctx))
		migration_pmd(ENTRY_removed);
	return 0;
}
