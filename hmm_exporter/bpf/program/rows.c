/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which open label values are admitted: owners, drivers, processes, first come. The functions
 * that find or make a row are generated behind this file (hmm_exporter/bpf/source.py).
 */

BPF_STACK_TRACE(stack_map, 2);

/* OTHER_STACK where none can be taken: no room, or another stack holds its slot. */
INLINE u32 stack_of(void *ctx)
{
	long id = stack_map.get_stackid(ctx, STACK_OF);

	if (id >= 0)
		return id;
	struct loss *row = loss_row(LOSS_stack);

	if (row)
		add(&row->events, 1);
	return OTHER_STACK;
}

/*
 * First come, as long as there is room. The stack is kept because an owner on the heap has no
 * name of its own: it is named after the driver that first migrated for it.
 */
INLINE int owner_admits(void *ctx, u64 address)
{
	struct owner_key key = {};
	struct owner_row row = {};

	key.owner = address;
	if (owner_map.lookup(&key))
		return 1;
	row.shard[0].stack = stack_of(ctx);
	return !owner_map.insert(&key, &row) || owner_map.lookup(&key);
}

INLINE int driver_admits(void *ctx, u64 address)
{
	struct driver_key key = {};
	struct driver_row row = {};

	key.ops = address;
	if (driver_map.lookup(&key))
		return 1;
	return !driver_map.insert(&key, &row) || driver_map.lookup(&key);
}

INLINE int process_admits(void *ctx, u64 *comm)
{
	struct process_key key = {};
	struct zero *blank = zero_row();

	copy_comm(key.comm, comm);
	if (process_map.lookup(&key))
		return 1;
	if (!blank)
		return 0;
	return !process_map.insert(&key, (struct process_row *)blank) || process_map.lookup(&key);
}
