/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The src and dst arrays of a migration: what was selected, what moved and where to. They are read
 * in blocks by a callback of bpf_loop (5.17), which the verifier looks at once, whatever the number
 * of blocks. bcc compiles no function pointers: the daemon joins the callback to the programs that
 * call it (hmm_exporter/bpf/code.py).
 */

/* Bits of an entry, include/linux/migrate.h:135-139 (7.3). COMPOUND, a huge folio, since 6.19. */
#define VALID_OF(entry) ((entry) & 1)
#define MIGRATE_OF(entry) ((entry) >> 1 & 1)
#define PFN_OF(entry) ((entry) >> 6)
#if MIGRATE_VMA_SELECT_COMPOUND
#define COMPOUND_OF(entry) ((entry) >> 4 & 1)
#else
#define COMPOUND_OF(entry) 0ULL
#endif
/* HPAGE_PMD_NR, the pages of a huge folio: as many as entries of 8 bytes fill a page. */
#define HUGE_PAGES (PAGE_SIZE / 8)

#define BLOCK 32 /* entries of both arrays that are read at a time */
#define MOST_ENTRIES (1U << 18) /* 1 GiB of 4 KiB pages; what lies behind is booked as not_read */

/*
 * What the arrays say, in pages. Lies in the thread's row, with the block: to 6.12 a callback and the
 * programs that call it share 512 bytes of stack.
 */
struct walk {
	u64 src;
	u64 dst;     /* 0: there is none yet */
	u64 address; /* of the first page, 0 where pages are named by frame */
	u64 mm;
	u64 now;
	u64 ram_end;
	u64 entries;
	u64 at;
	u64 cpu_fault; /* pages that come back do so because a CPU touched them */
	u64 region;    /* the last one looked up, and whether it came back within the window */
	u64 thrashes;

	u64 selected;  /* MIGRATE is set */
	u64 collected; /* the part of it that has a source page */
	u64 zero_filled;
	u64 refused;   /* had a destination and did not move */
	u64 unreadable;
	u64 moved[DIRECTION_COUNT];
	u64 moved_huge[DIRECTION_COUNT];
	u64 returned;
	u64 src_pfn; /* the first source, and destination, on a device */
	u64 dst_pfn;

	u64 src_block[BLOCK];
	u64 dst_block[BLOCK];
};

/* Pages of one block by direction, 16 bits each: one huge folio at most begins in a block. */
#define PACKED(pages, direction) ((pages) << ((direction) * 16))
#define UNPACKED(packed, direction) ((packed) >> ((direction) * 16) & 0xffff)

/* Whether the frame is behind the RAM, for valid entries. Without a branch: asked for each entry. */
#define ON_DEVICE(walk, entry) (((walk)->ram_end - 1 - PFN_OF(entry)) >> 63 & VALID_OF(entry))

/* 1 or 0, of a page frame number. */
#define IS_ZERO(pfn) (((pfn) - 1) >> 63)

/* `address` is that of the block's first page; no block crosses a region. */
INLINE void follow_region(struct walk *walk, u64 address, u64 to_device, u64 back)
{
	u64 region = address >> REGION_SHIFT;
	u64 is_new = region != walk->region;

	if (!walk->mm)
		return;
	if (to_device) {
		if (is_new)
			arrived(walk->mm, region, walk->now);
	} else if (back && walk->cpu_fault) {
		if (is_new)
			walk->thrashes = came_back(walk->mm, region, walk->now, walk->src_pfn);
		if (walk->thrashes)
			walk->returned += back;
	} else {
		return;
	}
	walk->region = region;
}

/*
 * Adds `count` entries, a constant. Without branches: each would double what the verifier follows,
 * up to its limit of a million instructions (seen on 7.3). Nor unrolled, which takes too much stack.
 */
INLINE void add_entries(struct walk *walk, u64 *src, u64 *dst, int count, u64 address)
{
	u64 selected = 0, collected = 0, zero_filled = 0, refused = 0, moved = 0, moved_huge = 0;
	u64 src_pfn = walk->src_pfn, dst_pfn = walk->dst_pfn;

#pragma nounroll
	for (int i = 0; i < count; i++) {
		u64 from = src[i], to = dst[i];
		u64 pages = 1 + COMPOUND_OF(from) * (HUGE_PAGES - 1);
		u64 migrates = MIGRATE_OF(from) * pages, arrives = VALID_OF(to) * migrates;
		u64 copied = VALID_OF(from) * arrives;
		u64 from_device = ON_DEVICE(walk, from), to_device = ON_DEVICE(walk, to);
		u64 direction = from_device << 1 | to_device;

		selected += migrates;
		collected += VALID_OF(from) * migrates;
		zero_filled += arrives - copied;
		refused += VALID_OF(to) * pages - arrives;
		moved += PACKED(copied, direction);
		moved_huge += PACKED(copied * COMPOUND_OF(from), direction);
		src_pfn += IS_ZERO(src_pfn) * from_device * PFN_OF(from);
		dst_pfn += IS_ZERO(dst_pfn) * to_device * PFN_OF(to);
	}
	walk->src_pfn = src_pfn;
	walk->dst_pfn = dst_pfn;
	walk->selected += selected;
	walk->collected += collected;
	walk->zero_filled += zero_filled;
	walk->refused += refused;
#pragma unroll
	for (int i = 0; i < DIRECTION_COUNT; i++) {
		walk->moved[i] += UNPACKED(moved, i);
		walk->moved_huge[i] += UNPACKED(moved_huge, i);
	}
	u64 filled = walk->dst_pfn ? zero_filled : 0;

	follow_region(walk, address,
		      UNPACKED(moved, DIRECTION_host_to_device) + UNPACKED(moved, DIRECTION_device_to_device) + filled,
		      UNPACKED(moved, DIRECTION_device_to_host));
}

INLINE u64 any_source(struct walk *walk)
{
	u64 any = 0;

#pragma unroll
	for (int i = 0; i < BLOCK; i++)
		any |= walk->src_block[i];
	return any;
}

/*
 * Reads a block; 0 if that fails, or if nothing in it counts. Most of what a driver evicts is not
 * there: entries of 0. In an mm, one of 0 may be a hole that had a destination and was not filled.
 */
INLINE u64 read_block(struct walk *walk, u64 at, u64 count)
{
	if (count < BLOCK) {
		__builtin_memset(walk->src_block, 0, sizeof(walk->src_block));
		__builtin_memset(walk->dst_block, 0, sizeof(walk->dst_block));
	}
	if (probe_read(walk->src_block, count * 8, (void *)(walk->src + at * 8)))
		goto failed;
	if (!walk->mm && !any_source(walk))
		return 0;
	if (walk->dst && probe_read(walk->dst_block, count * 8, (void *)(walk->dst + at * 8)))
		goto failed;
	return 1;
failed:
	walk->unreadable += count;
	return 0;
}

/*
 * bpf_loop's callback: one block. Blocks end where the address does so that none crosses a region.
 * What it is given must lie on the stack: the address of the walk.
 */
int walk_block(u64 *context)
{
	struct walk *walk = (void *)*context;
	u64 at = walk->at, left = walk->entries - at, address = walk->address + at * PAGE_SIZE;
	u64 count = BLOCK - (address / PAGE_SIZE & (BLOCK - 1));

	if (count > left)
		count = left;
	/* It cannot be more; the compiler knows, and the verifier to 6.7 does not: it compares with constants only. */
	FORGET(count);
	if (count > BLOCK)
		return 1;
	if (read_block(walk, at, count))
		add_entries(walk, walk->src_block, walk->dst_block, BLOCK, address);
	walk->at = at + count;
	return walk->at >= walk->entries;
}

INLINE void walk_one(struct walk *walk)
{
	u64 src = 0, dst = 0;

	if (probe_read(&src, 8, (void *)walk->src) || (walk->dst && probe_read(&dst, 8, (void *)walk->dst)))
		walk->unreadable = 1;
	else
		add_entries(walk, &src, &dst, 1, walk->address);
}

INLINE void walk_blocks(struct walk *walk)
{
	u64 context = (u64)walk;

	/* One block more than is full, and one, because the first may be short. */
	loop(walk->entries / BLOCK + 2, (void *)WALK_BLOCK, &context, 0);
}

/* Reads the arrays of `entries` pages. Whose mm it is and why is set before, or 0. */
INLINE void walk_arrays(struct walk *walk, u64 src, u64 dst, u64 entries)
{
	struct devices *devices = known_devices();

	walk->src = src;
	walk->dst = dst;
	walk->entries = entries < MOST_ENTRIES ? entries : MOST_ENTRIES;
	walk->ram_end = devices ? devices->ram_end : 0;
	walk->at = 0;
	walk->region = ~0ULL;
	walk->selected = walk->collected = walk->zero_filled = walk->refused = walk->unreadable = 0;
	walk->returned = walk->src_pfn = walk->dst_pfn = 0;
	__builtin_memset(walk->moved, 0, sizeof(walk->moved));
	__builtin_memset(walk->moved_huge, 0, sizeof(walk->moved_huge));
	if (!dst)
		__builtin_memset(walk->dst_block, 0, sizeof(walk->dst_block));
	if (walk->entries == 1)
		walk_one(walk);
	else if (walk->entries)
		walk_blocks(walk);
}

/* Of the migration's destination if that is on a device, else of its source. */
INLINE u8 walked_device(struct walk *walk)
{
	return device_of(walk->dst_pfn ? walk->dst_pfn : walk->src_pfn);
}
