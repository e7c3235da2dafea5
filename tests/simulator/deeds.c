/* SPDX-License-Identifier: Apache-2.0 */
/* What scenarios are made of: single deeds, done as the driver at hand does them. */
#include "scenarios.h"

/* A migration entry costs an event of its own: this many small ones are moved at a time, at most. */
#define SMALL_ENTRIES 12

static struct dice *dice_of(struct actor *actor)
{
	return &actor->pace.dice;
}

/* `least` times a power of two, up to `most`; small ones are as likely as large ones. */
static unsigned long size_between(struct actor *actor, unsigned long least, unsigned long most)
{
	unsigned int steps = __builtin_ctzl(most) - __builtin_ctzl(least) + 1;

	return least << dice_pick(dice_of(actor), steps);
}

static struct region new_region(struct actor *actor, enum process_id process, enum owner_id owner, unsigned long size)
{
	unsigned long place = dice_pick(dice_of(actor), 1 << 18) * HPAGE_PMD_SIZE;

	return (struct region){ process, owner, actor->world->process[process].area[AREA_HEAP].vm_start + place, size,
				0 };
}

static struct page_table *heap_of(struct actor *actor, enum process_id process)
{
	return &actor->world->process[process].tables[AREA_HEAP];
}

/* Huge ranges are made of huge folios; of small ones, a part is there to be moved. */
static void populate_region(struct actor *actor, const struct region *region)
{
	struct page_table *heap = heap_of(actor, region->process);
	unsigned long entries = region->size >> PAGE_SHIFT;

	reset_area(actor->world, region->process, AREA_HEAP);
	if (region->size >= HPAGE_PMD_SIZE) {
		heap->order = HPAGE_PMD_ORDER;
		entries = region->size / HPAGE_PMD_SIZE;
	}
	heap->present = entries < SMALL_ENTRIES ? entries : SMALL_ENTRIES;
	heap->holes = dice_one_in(dice_of(actor), 10);
	heap->forked = dice_one_in(dice_of(actor), 40);
}

static struct migrate_request request_for(struct actor *actor, const struct region *region)
{
	const struct driver *driver = &drivers[owners[region->owner].driver];

	populate_region(actor, region);
	return (struct migrate_request){
		.owner = &owners[region->owner],
		.vma = &actor->world->process[region->process].area[AREA_HEAP],
		.start = region->start,
		.end = region->start + region->size,
		.finalize_empty = driver->finalizes_empty,
		.pages_when_empty = true,
		.copies_late = driver->copies_late,
	};
}

static void send_to_device(struct actor *actor, const struct region *region, struct task_struct *task)
{
	struct migrate_request req = request_for(actor, region);

	play(task);
	req.flags = drivers[req.owner->driver].device_flags;
	drivers[req.owner->driver].to_device(&req);
}

static void evict(struct actor *actor, const struct region *region)
{
	struct migrate_request req = request_for(actor, region);

	play(&actor->world->kworker[KWORKER_EVICT]);
	req.flags = drivers[req.owner->driver].ram_flags;
	drivers[req.owner->driver].to_ram(&req);
}

/* The pages of `region` are on the device; `req` is what its driver does about a fault on them. */
static void leave_on_device(struct actor *actor, const struct region *region, struct migrate_request *req)
{
	struct page_table *heap = heap_of(actor, region->process);

	*req = request_for(actor, region);
	req->flags = drivers[req->owner->driver].fault_flags;
	req->fault_page = &actor->world->device_page[region->owner];
	heap->state = ENTRY_DEVICE_PRIVATE;
	heap->page = req->fault_page;
	heap->page->zone_device_data = req;
}

static void touch(struct actor *actor, const struct region *region)
{
	struct process *process = &actor->world->process[region->process];
	struct migrate_request req;

	leave_on_device(actor, region, &req);
	play(&process->task);
	do_user_addr_fault(&process->area[AREA_HEAP], region->start);
}

/* A driver mirrors a range: `path` is an index of range_paths. */
static int mirror(struct actor *actor, unsigned int path, const struct region *region, bool write, void *owner)
{
	unsigned long pfns[HMM_PFNS] = {};
	struct range_request req = {
		.range = { .notifier = &actor->world->process[region->process].mirror[range_paths[path].mirror],
			   .start = region->start, .end = region->start + region->size, .hmm_pfns = pfns,
			   .default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
			   .dev_private_owner = owner },
		.timeout = 1000,
		.mirror = range_paths[path].mirror,
	};

	return range_paths[path].fault(&req);
}

enum { PATH_GFX, PATH_HSA, PATH_SVM, PATH_GPUSVM_CHECK, PATH_GPUSVM, PATH_USERPTR, PATH_NOUVEAU, PATH_UVM,
       PATH_DMIRROR, PATH_SNAPSHOT, PATH_ODP };
