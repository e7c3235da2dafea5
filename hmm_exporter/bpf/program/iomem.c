/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the kernel's tree of physical ranges, iomem_resource, which /proc/iomem shows to
 * CAP_SYS_ADMIN only. Attached to nothing: the daemon runs it (BPF_PROG_TEST_RUN), a few rows at a
 * time, and reads them from a map that it cannot write. So the address that it gives at first is
 * the only one that this program can ever be made to start from.
 *
 * The tree's lock cannot be taken here. Whatever changes meanwhile, every read is checked, and a
 * node is believed only if its parent is the one we came from, before its name was read and after:
 * what is released has no parent from then on (kernel/resource.c, __release_resource).
 */

static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*read_kernel_string)(void *to, u32 size, const void *from) = (void *)115;

#define RESOURCE_STEPS 128 /* in one run, which ends when its rows are full, too */

#define WALK_DONE 0
#define WALK_MORE 1
#define WALK_TORN 2 /* the tree changed under us */

struct walked_resource {
	u64 start;
	u64 end;
	u32 depth;
	u32 device_private;
	u8 name[32];
};

struct resource_walk {
	u64 root;
	u64 node;     /* where the next step is, or 0 */
	u64 parent;   /* the node's, or it is not the one that we mean */
	u32 depth;
	u32 climbing; /* node and what is below it were seen */
	u64 rows;
	struct walked_resource row[64];
};

BPF_TABLE("array", u32, struct resource_walk, resource_map, 1);

#define RESOURCE_FIELD(copy, field) (*(u64 *)((char *)(copy) + OFFSET_resource_##field))

INLINE u64 resource_pointer(u64 node, u64 offset)
{
	u64 value = 0;

	read_kernel(&value, sizeof(value), (void *)(node + offset));
	return value;
}

/* Context: the address of iomem_resource, of which the first one counts; 1 to begin again. */
int walk_resources(u64 *ctx)
{
	u32 index = 0;
	struct resource_walk *walk = resource_map.lookup(&index);

	if (!walk)
		return WALK_TORN;
	if (!walk->root)
		walk->root = ctx[0];
	if (ctx[1]) {
		walk->node = resource_pointer(walk->root, OFFSET_resource_child);
		walk->parent = walk->root;
		walk->depth = 0;
		walk->climbing = 0;
	}
	walk->rows = 0;
	for (int step = 0; step < RESOURCE_STEPS; step++) {
		u64 copy[(SIZE_resource + 7) / 8] = {};
		u64 node = walk->node, at = walk->rows;

		if (!node)
			return WALK_DONE;
		if (at >= sizeof(walk->row) / sizeof(walk->row[0]))
			return WALK_MORE;
		if (read_kernel(copy, SIZE_resource, (void *)node))
			return WALK_TORN;
		if (!walk->parent || RESOURCE_FIELD(copy, parent) != walk->parent)
			return WALK_TORN;
		if (!walk->climbing) {
			struct walked_resource *row = &walk->row[at];

			row->start = RESOURCE_FIELD(copy, start);
			row->end = RESOURCE_FIELD(copy, end);
			row->depth = walk->depth;
			row->device_private = RESOURCE_FIELD(copy, desc) == IORES_DESC_DEVICE_PRIVATE_MEMORY;
			row->name[0] = 0;
			read_kernel_string(row->name, sizeof(row->name), (void *)RESOURCE_FIELD(copy, name));
			if (resource_pointer(node, OFFSET_resource_parent) != walk->parent)
				return WALK_TORN;
			walk->rows = at + 1;
			if (RESOURCE_FIELD(copy, child)) {
				walk->parent = node;
				walk->node = RESOURCE_FIELD(copy, child);
				walk->depth++;
				continue;
			}
		}
		if (RESOURCE_FIELD(copy, sibling)) {
			walk->node = RESOURCE_FIELD(copy, sibling);
			walk->climbing = 0;
		} else if (walk->depth) {
			walk->node = walk->parent;
			walk->parent = resource_pointer(walk->node, OFFSET_resource_parent);
			walk->depth--;
			walk->climbing = 1;
		} else {
			walk->node = 0;
		}
	}
	return WALK_MORE;
}
