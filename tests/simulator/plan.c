/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that exact mode issues besides migrations. */
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static enum process_id any_process(struct stage *stage)
{
	return stage->alone ? 0 : dice_pick(&stage->dice, NR_PROCESSES);
}

static unsigned long any_size(struct stage *stage)
{
	unsigned long size = PAGE_SIZE << dice_pick(&stage->dice, 26);

	switch (dice_pick(&stage->dice, 3)) {
	case 0: return size + PAGE_SIZE;
	case 1: return size > PAGE_SIZE ? size - PAGE_SIZE : size;
	default: return size;
	}
}

static unsigned long any_migration_size(struct stage *stage)
{
	unsigned int rarity = dice_pick(&stage->dice, 512), exponent;
	unsigned long size;

	if (!rarity)
		exponent = 18 + dice_pick(&stage->dice, 8);
	else if (rarity < 9)
		exponent = 14 + dice_pick(&stage->dice, 4);
	else if (rarity < 41)
		exponent = 10 + dice_pick(&stage->dice, 4);
	else
		exponent = dice_pick(&stage->dice, 10);
	size = PAGE_SIZE << exponent;
	switch (dice_pick(&stage->dice, 3)) {
	case 0: return size + PAGE_SIZE;
	case 1: return size > PAGE_SIZE ? size - PAGE_SIZE : size;
	default: return size;
	}
}

static unsigned int any_every(struct stage *stage)
{
	static const unsigned char every[] = { 1, 2, 3, 7, 64 };

	return dice_one_in(&stage->dice, 6) ? every[dice_pick(&stage->dice, ARRAY_SIZE(every))] : 0;
}

static unsigned long any_address(struct stage *stage, enum process_id id)
{
	return stage->world->process[id].area[AREA_HEAP].vm_start + dice_pick(&stage->dice, 1024) * HPAGE_PMD_SIZE;
}

static struct task_struct *any_task(struct stage *stage, enum process_id id)
{
	if (dice_one_in(&stage->dice, 3))
		return &stage->world->kworker[dice_pick(&stage->dice, NR_KWORKERS)];
	return &stage->world->process[id].task;
}

static void expect(const char *what, int result, int wanted)
{
	if (result == wanted)
		return;
	fprintf(stderr, "hmm-simulator: %s planned to return %d returned %d\n", what, wanted, result);
	abort();
}

static const struct { const char *name; unsigned long flags, mask, pfn; } intents[] = {
	{ "snapshot", 0, 0, 0 },
	{ "read", HMM_PFN_REQ_FAULT, 0, 0 },
	{ "write", HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE, 0, 0 },
	{ "per_page", 0, HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE, HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE },
};

static const int range_results[] = { 0, 0, 0, 0, 0, 0, 0, -EBUSY, -EBUSY, -EFAULT, -EPERM, -EINVAL, -ENOMEM, -EINTR };

/* What a mere look cannot run into, what reading cannot, what only the new function returns. */
static bool is_possible(int result, unsigned long required, bool unlocked)
{
	switch (result) {
	case -EFAULT:
	case -ENOMEM: return required & HMM_PFN_REQ_FAULT;
	case -EPERM: return required & HMM_PFN_REQ_WRITE;
	case -EINTR: return unlocked;
	default: return true;
	}
}

/* Makes the world so that hmm_range_fault has to return `result`. */
static void prepare_range_fault(struct stage *stage, struct range_request *req, struct process *process, int result,
				bool unlocked)
{
	struct page_table *heap = &process->tables[AREA_HEAP];
	unsigned long size = req->range.end - req->range.start;
	bool faults = required_flags(&req->range) & HMM_PFN_REQ_FAULT;

	heap->state = dice_one_in(&stage->dice, 2) ? ENTRY_NONE : ENTRY_PRESENT;
	if (unlocked) {
		process->subscriptions.races = dice_pick(&stage->dice, 3);
		req->timeout = dice_one_in(&stage->dice, 2) ? 0 : 5;
	}
	heap->major = dice_one_in(&stage->dice, 3);
	/* One more attempt each. */
	heap->breaks_cow = unlocked && dice_one_in(&stage->dice, 3);
	heap->drops_lock = dice_one_in(&stage->dice, 3);
	switch (result) {
	case -EBUSY:
		if (!unlocked && faults && dice_one_in(&stage->dice, 2)) {
			heap->state = ENTRY_NONE;
			heap->breaks_cow = true;
		} else {
			process->subscriptions.races = req->timeout = 1 + (unlocked ? dice_pick(&stage->dice, 3) : 0);
		}
		break;
	case -EFAULT:
		req->range.start = dice_one_in(&stage->dice, 2) ? process->area[AREA_HEAP].vm_end :
								 process->area[AREA_IO].vm_start;
		req->range.end = req->range.start + size;
		break;
	case -EPERM:
		req->range.start = process->area[AREA_READ_ONLY].vm_start;
		req->range.end = req->range.start + size;
		break;
	case -EINVAL:
		req->range.end = req->range.start - (dice_one_in(&stage->dice, 2) ? PAGE_SIZE : 0);
		break;
	case -ENOMEM:
		heap->state = ENTRY_NONE;
		current->make_it_fail = 1;
		break;
	case -EINTR:
		current->fatal_signal = true;
		break;
	}
}

static void plan_range_fault(struct stage *stage)
{
	const struct range_path *path = &range_paths[dice_pick(&stage->dice, ARRAY_SIZE(range_paths))];
	bool unlocked = path->function[sizeof("hmm_range_fault") - 1];
	unsigned int intent = dice_pick(&stage->dice, ARRAY_SIZE(intents));
	int result = range_results[dice_pick(&stage->dice, ARRAY_SIZE(range_results))];
	enum process_id id = any_process(stage);
	struct process *process = &stage->world->process[id];
	unsigned long start = any_address(stage, id), pfns[HMM_PFNS] = { intents[intent].pfn };
	struct range_request req = {
		.range = { .notifier = &process->mirror[path->mirror], .start = start,
			   .end = start + any_size(stage), .hmm_pfns = pfns, .default_flags = intents[intent].flags,
			   .pfn_flags_mask = intents[intent].mask },
		.mirror = path->mirror,
		.intent = intents[intent].name,
	};

	if (!is_possible(result, intents[intent].flags | intents[intent].pfn, unlocked))
		result = 0;
	reset_area(stage->world, id, AREA_HEAP);
	play(any_task(stage, id));
	prepare_range_fault(stage, &req, process, result, unlocked);
	expect(path->function, path->fault(&req), result);
	process->subscriptions.races = 0;
	current->make_it_fail = 0;
	current->fatal_signal = false;
}

static const int exclusive_results[] = { 0, 0, 0, 0, -EFAULT, -ENOMEM, -EOPNOTSUPP, -EINTR };

static void plan_exclusive(struct stage *stage)
{
	enum process_id id = any_process(stage);
	struct process *process = &stage->world->process[id];
	int result = exclusive_results[dice_pick(&stage->dice, ARRAY_SIZE(exclusive_results))];
	static const enum entry_state before[] = { ENTRY_PRESENT, ENTRY_NONE, ENTRY_DEVICE_EXCLUSIVE };
	struct exclusive_request req = { &process->mm, any_address(stage, id), NULL };

	reset_area(stage->world, id, AREA_HEAP);
	play(any_task(stage, id));
	process->tables[AREA_HEAP].state = before[result ? 1 : dice_pick(&stage->dice, ARRAY_SIZE(before))];
	if (result == -EFAULT)
		req.addr = process->area[AREA_HEAP].vm_end;
	if (result == -EOPNOTSUPP)
		req.addr = process->area[AREA_FILE].vm_start;
	current->make_it_fail = result == -ENOMEM;
	current->fatal_signal = result == -EINTR;
	expect("make_device_exclusive", exclusive_paths[dice_pick(&stage->dice, ARRAY_SIZE(exclusive_paths))](&req),
	       result);
	current->make_it_fail = 0;
	current->fatal_signal = false;
}

static void plan_restore(struct stage *stage)
{
	enum process_id id = any_process(stage);
	struct vm_area_struct *heap = &stage->world->process[id].area[AREA_HEAP];

	reset_area(stage->world, id, AREA_HEAP);
	page_table_of(heap)->state = ENTRY_DEVICE_EXCLUSIVE;
	play(&stage->world->process[id].task);
	if (dice_one_in(&stage->dice, 4))
		restore_exclusive(heap, any_address(stage, id), "fork");
	else
		do_user_addr_fault(heap, any_address(stage, id));
}

static const int insert_results[] = { 0, 0, 0, 0, 0, 0, 0, 0, -EOVERFLOW, -ENOMEM, -EINTR, -EINVAL };

static void plan_notifier_insert(struct stage *stage)
{
	int result = insert_results[dice_pick(&stage->dice, ARRAY_SIZE(insert_results))];
	enum mirror_id mirror = dice_pick(&stage->dice, NR_MIRRORS);
	enum process_id id = any_process(stage);
	struct mm_struct *mm = &stage->world->process[id].mm;
	unsigned long start = any_address(stage, id), length = any_size(stage);

	play(any_task(stage, id));
	if (result == -EOVERFLOW && dice_one_in(&stage->dice, 2))
		length = 0;
	else if (result == -EOVERFLOW)
		start = 1 - length;
	current->make_it_fail = result == -ENOMEM;
	current->fatal_signal = result == -EINTR;
	mm->mm_users = result != -EINVAL;
	expect("mmu_interval_notifier_insert",
	       mirrors[mirror].insert(&stage->notifier[stage->notifiers], mm, start, length, &mirrors[mirror]),
	       result);
	if (!result)
		stage->notifier_of[stage->notifiers++] = mirror;
	current->make_it_fail = 0;
	current->fatal_signal = false;
	mm->mm_users = 1;
}

/* As many as there were inserts; in place of those that failed, ones from before anybody watched. */
static void plan_notifier_remove(struct stage *stage)
{
	enum process_id id = any_process(stage);
	enum mirror_id mirror = dice_pick(&stage->dice, NR_MIRRORS);
	struct mmu_interval_notifier *old = &stage->world->process[id].mirror[mirror];

	play(any_task(stage, id));
	if (stage->notifiers) {
		stage->notifiers--;
		mirror = stage->notifier_of[stage->notifiers];
		mirrors[mirror].remove(&stage->notifier[stage->notifiers], &mirrors[mirror]);
	} else {
		mirrors[mirror].remove(old, &mirrors[mirror]);
		link_notifier(old);
	}
}

/* Huge faults without a migration: the entry has changed meanwhile, or the driver has no memory. */
static void plan_huge_fault(struct stage *stage)
{
	static const int give_up[] = { -ENOMEM, -EIO };
	enum process_id id = any_process(stage);
	enum owner_id owner = dice_pick(&stage->dice, NR_OWNERS);
	struct page *page = &stage->world->device_page[owner];
	struct migrate_request req = { .give_up = give_up[dice_pick(&stage->dice, 2)] };
	struct page_table *heap = &stage->world->process[id].tables[AREA_HEAP];

	page->zone_device_data = &req;
	*heap = (struct page_table){ ENTRY_DEVICE_PRIVATE, dice_one_in(&stage->dice, 2) ? NULL : page,
				     .order = HPAGE_PMD_ORDER };
	play(&stage->world->process[id].task);
	do_user_addr_fault(&stage->world->process[id].area[AREA_HEAP], any_address(stage, id));
}

static unsigned int any_run(struct stage *stage)
{
	static const unsigned short pages[] = { 1, 2, 3, 15, 16, 17, 100, 511, 512, 513, 1024, 1536 };

	return pages[dice_pick(&stage->dice, ARRAY_SIZE(pages))];
}

static void plan_device_range(struct stage *stage)
{
	unsigned int path = dice_pick(&stage->dice, ARRAY_SIZE(evictions)), declines = any_every(stage);
	unsigned long npages = any_migration_size(stage) >> PAGE_SHIFT, pfn;

	device_chunk = (struct page_table){ .pgmap = pgmap_of(evictions[path].owner, dice_pick(&stage->dice, 2)) };
	device_chunk.runs = 1 + dice_pick(&stage->dice, PAGE_RUNS);
	for (unsigned int i = 0; i < device_chunk.runs; i++)
		device_chunk.run[i] = (struct page_run){ dice_one_in(&stage->dice, 3) ? NOTHING : ON_DEVICE,
							 any_run(stage), dice_one_in(&stage->dice, 2) };
	pfn = (device_chunk.pgmap->range.start >> PAGE_SHIFT) + dice_pick(&stage->dice, 1024);
	trouble.pinned = any_every(stage);
	trouble.uncommitted = any_every(stage);
	if (evictions[path].page_by_page)
		npages = 1 + dice_pick(&stage->dice, stage->left);
	play(any_task(stage, any_process(stage)));
	evictions[path].evict(pfn, npages, declines);
	memset(&trouble, 0, sizeof(trouble));
}

#define DMA_PAGES 16

static void plan_dma_map(struct stage *stage)
{
	struct pci_p2pdma_map_state state = { .unsupported = dice_one_in(&stage->dice, 8) };
	unsigned int idx = dice_pick(&stage->dice, DMA_PAGES);
	unsigned long pfns[DMA_PAGES] = {};
	struct hmm_dma_map map = { .pfn_list = pfns, .dma_entry_size = PAGE_SIZE };

	pfns[idx] = HMM_PFN_VALID | (state.unsupported ? HMM_PFN_P2PDMA : 0);
	play(any_task(stage, any_process(stage)));
	expect("hmm_dma_map_pfn", mlx5_odp_populate_mtt(&map, idx, &state), !state.unsupported);
}

static void plan_dma_unmap(struct stage *stage)
{
	unsigned int idx = dice_pick(&stage->dice, DMA_PAGES);
	bool mapped = !dice_one_in(&stage->dice, 8);
	unsigned long pfns[DMA_PAGES] = {};
	struct hmm_dma_map map = { .pfn_list = pfns, .dma_entry_size = PAGE_SIZE };

	pfns[idx] = HMM_PFN_VALID | (mapped ? HMM_PFN_DMA_MAPPED : 0);
	play(any_task(stage, any_process(stage)));
	expect("hmm_dma_unmap_pfn", ib_umem_odp_unmap_dma_pages(&map, idx), mapped);
}

/* munmap, mprotect and their like: events that no HMM function sends. */
static void plan_invalidation(struct stage *stage)
{
	enum process_id id = any_process(stage);
	unsigned long start = any_address(stage, id);
	struct mmu_notifier_range range = { &stage->world->process[id].mm, start, start + any_size(stage), 0,
					    dice_pick(&stage->dice, MMU_NOTIFY_MIGRATE), NULL };

	play(any_task(stage, id));
	mmu_notifier_invalidate_range_start(&range);
}

/* Compaction, as a rule kcompactd's. Folios above order 10 are hugetlb's. */
static void plan_migration_pte(struct stage *stage)
{
	unsigned int order = dice_pick(&stage->dice, 2) ? dice_pick(&stage->dice, ARRAY_SIZE(order_names)) : 0;
	enum process_id id = any_process(stage);

	play(dice_one_in(&stage->dice, 2) ? &stage->world->kworker[KCOMPACTD] : &stage->world->process[id].task);
	if (dice_one_in(&stage->dice, 2))
		trace_set_migration_pte(any_address(stage, id), 1, order);
	else
		trace_remove_migration_pte(any_address(stage, id), 1, order);
}

static void plan_migration_pmd(struct stage *stage)
{
	enum process_id id = any_process(stage);

	play(dice_one_in(&stage->dice, 2) ? &stage->world->kworker[KCOMPACTD] : &stage->world->process[id].task);
	if (dice_one_in(&stage->dice, 2))
		trace_set_migration_pmd(any_address(stage, id), 1);
	else
		trace_remove_migration_pmd(any_address(stage, id), 1);
}
