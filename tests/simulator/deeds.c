/* SPDX-License-Identifier: Apache-2.0 */
/* What scenarios are made of: single deeds, done as the driver at hand does them. */
#include "scenarios.h"

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

/* One of `places`: few are gone back to soon. */
static struct region region_among(struct actor *actor, enum process_id process, enum owner_id owner,
				  unsigned long size, unsigned int places)
{
	unsigned long place = dice_pick(dice_of(actor), places) * HPAGE_PMD_SIZE;

	return (struct region){ process, owner, actor->world->process[process].area[AREA_HEAP].vm_start + place, size,
				0 };
}

static struct region new_region(struct actor *actor, enum process_id process, enum owner_id owner, unsigned long size)
{
	return region_among(actor, process, owner, size, 1 << 18);
}

static struct page_table *heap_of(struct actor *actor, enum process_id process)
{
	return &actor->world->process[process].tables[AREA_HEAP];
}

/* Huge ranges are mostly made of huge folios; here and there a page was never touched, or is swapped out. */
static void populate_region(struct actor *actor, const struct region *region, enum place place)
{
	struct page_table *heap = heap_of(actor, region->process);
	struct dice *dice = dice_of(actor);
	bool huge = region->size >= HPAGE_PMD_SIZE;

	reset_area(actor->world, region->process, AREA_HEAP);
	heap->order = huge ? HPAGE_PMD_ORDER : 0;
	heap->forked = dice_one_in(dice, 40);
	heap->pgmap = pgmap_of(region->owner, 0);
	heap->runs = 2;
	heap->run[0] = (struct page_run){ place, (1 + dice_pick(dice, 16)) * (huge ? HPAGE_PMD_NR : 64), huge };
	heap->run[1] = (struct page_run){ dice_pick(dice, IN_RAM), dice_pick(dice, 8), false };
}

/* Now and then a page is held by somebody, or the device is full. */
static void have_trouble(struct actor *actor, struct migrate_request *req)
{
	struct dice *dice = dice_of(actor);

	trouble.pinned = dice_one_in(dice, 10) ? 50 : 0;
	trouble.uncommitted = dice_one_in(dice, 30) ? 100 : 0;
	req->room = req->destination && dice_one_in(dice, 30) ? 1 + dice_pick(dice, 100) : 0;
	req->splits = dice_one_in(dice, 20) ? 1 : 0;
}

/* Memory that is in a place; where it is to go, the caller says. */
static struct migrate_request request_for(struct actor *actor, const struct region *region, enum place place)
{
	const struct driver *driver = &drivers[owners[region->owner].driver];

	populate_region(actor, region, place);
	return (struct migrate_request){
		.owner = &owners[region->owner],
		.vma = &actor->world->process[region->process].area[AREA_HEAP],
		.start = region->start,
		.end = region->start + region->size,
		.finalize_empty = driver->finalizes_empty,
		.pages_when_empty = true,
		.copies_late = driver->copies_late,
		.ignores_holes = place == ON_DEVICE,
	};
}

static void send_to_device(struct actor *actor, const struct region *region, struct task_struct *task)
{
	struct migrate_request req = request_for(actor, region, IN_RAM);

	play(task);
	req.flags = drivers[req.owner->driver].device_flags;
	req.destination = pgmap_of(region->owner, 0);
	have_trouble(actor, &req);
	drivers[req.owner->driver].to_device(&req);
}

static void evict(struct actor *actor, const struct region *region)
{
	struct migrate_request req = request_for(actor, region, ON_DEVICE);

	play(&actor->world->kworker[KWORKER_EVICT]);
	have_trouble(actor, &req);
	req.flags = drivers[req.owner->driver].ram_flags;
	drivers[req.owner->driver].to_ram(&req);
}

/* The pages of `region` are on the device; `req` is what its driver does about a fault on them. */
static void leave_on_device(struct actor *actor, const struct region *region, struct migrate_request *req)
{
	struct page_table *heap = heap_of(actor, region->process);

	*req = request_for(actor, region, ON_DEVICE);
	have_trouble(actor, req);
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
