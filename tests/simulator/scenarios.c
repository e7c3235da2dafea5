/* SPDX-License-Identifier: Apache-2.0 */
/* The scenarios themselves, and when each of them is played. */
#include "scenarios.h"

#include <errno.h>
#include <math.h>

#define KIB 1024UL
#define MIB (1024 * KIB)
/* What thrashes comes back to the same few addresses. */
#define THRASHED_PLACES 64
/* What has gone to a device for good reason comes back later, if it does. */
#define HUGE_PLACES 256

/* A model is read in: large ranges, one after another, to the two GPUs of an amdgpu machine. */
static void warm_up(struct actor *actor)
{
	enum owner_id gpu = dice_one_in(dice_of(actor), 2) ? OWNER_AMDGPU_0 : OWNER_AMDGPU_1;
	struct region region = new_region(actor, LLAMA, gpu, size_between(actor, 2 * MIB, 256 * MIB));

	send_to_device(actor, &region, &actor->world->process[LLAMA].task);
}

/* Work goes on where the data is: GPU faults bring in a little, mirrors are refreshed. */
static void steady(struct actor *actor)
{
	struct region region = new_region(actor, PYTHON, OWNER_XE, size_between(actor, 4 * KIB, 2 * MIB));

	send_to_device(actor, &region, &actor->world->kworker[KWORKER_FAULT]);
	play(&actor->world->kworker[KWORKER_FAULT]);
	if (dice_one_in(dice_of(actor), 3))
		mirror(actor, dice_one_in(dice_of(actor), 4) ? PATH_GPUSVM_CHECK : PATH_GPUSVM, &region,
		       dice_one_in(dice_of(actor), 2), owners[OWNER_XE].pointer);
}

/* Sends memory away and touches it again a moment later, between tenths of a second and a few. */
static void thrash(struct actor *actor)
{
	struct region *oldest = &actor->region[actor->first], *next;

	if (actor->regions && (oldest->due <= now_ns() || actor->regions == REGIONS)) {
		touch(actor, oldest);
		actor->first = (actor->first + 1) % REGIONS;
		actor->regions--;
		return;
	}
	next = &actor->region[(actor->first + actor->regions++) % REGIONS];
	*next = region_among(actor, TRAIN, OWNER_UVM, size_between(actor, 4 * KIB, 2 * MIB), THRASHED_PLACES);
	next->due = now_ns() + 800e6 * exp(0.7 * dice_normal(dice_of(actor)));
	send_to_device(actor, next, &actor->world->process[TRAIN].task);
}

/* The allocator of a process works under its GPU's mirror: most refreshes come too late. */
static void ebusy_storm(struct actor *actor)
{
	struct region region = new_region(actor, OLLAMA, OWNER_AMDGPU_0, size_between(actor, 64 * KIB, 8 * MIB));
	static const unsigned char paths[] = { PATH_GFX, PATH_HSA, PATH_SVM, PATH_SVM, PATH_UVM };
	unsigned int path = paths[dice_pick(dice_of(actor), ARRAY_SIZE(paths))];
	struct process *process = &actor->world->process[OLLAMA];

	play(&process->task);
	for (int tries = 0; tries < 4; tries++) {
		process->subscriptions.races = dice_pick(dice_of(actor), 3) > 0;
		if (mirror(actor, path, &region, true, NULL) != -EBUSY)
			break;
	}
	process->subscriptions.races = 0;
}

/* The device is full: drivers give memory back, by both ways that there are. */
static void eviction(struct actor *actor)
{
	unsigned long size = size_between(actor, 64 * KIB, 8 * MIB);
	struct region region = new_region(actor, LLAMA, OWNER_AMDGPU_1, size);
	unsigned int path = dice_pick(dice_of(actor), ARRAY_SIZE(evictions));

	if (dice_one_in(dice_of(actor), 2)) {
		evict(actor, &region);
		return;
	}
	play(&actor->world->kworker[KWORKER_EVICT]);
	device_chunk = (struct page_table){ .pgmap = pgmap_of(evictions[path].owner, 0), .runs = 2 };
	device_chunk.run[0] = (struct page_run){ ON_DEVICE, 1024, true };
	device_chunk.run[1] = (struct page_run){ NOTHING, 512, false };
	evictions[path].evict(device_chunk.pgmap->range.start >> PAGE_SHIFT, evictions[path].page_by_page ? 16 : size >> PAGE_SHIFT, 0);
}

/* Whole huge folios, there and back; another device may be the one that wants them. */
static void huge_pages(struct actor *actor)
{
	struct region region = region_among(actor, VLLM, OWNER_XE, HPAGE_PMD_SIZE, HUGE_PLACES);
	struct migrate_request req;

	switch (dice_pick(dice_of(actor), 4)) {
	case 0:
		leave_on_device(actor, &region, &req);
		play(&actor->world->process[VLLM].task);
		mirror(actor, PATH_ODP, &region, true, NULL);
		break;
	case 1:
		touch(actor, &region);
		break;
	default:
		region.size *= 1 + dice_pick(dice_of(actor), 4);
		send_to_device(actor, &region, &actor->world->process[VLLM].task);
	}
}

/* Arguments that are no good, drivers that give up half-way, devices without room, killed tasks. */
static void failures(struct actor *actor)
{
	struct region region = new_region(actor, OLLAMA, OWNER_NOUVEAU, size_between(actor, 4 * KIB, 256 * KIB));
	struct process *process = &actor->world->process[OLLAMA];
	struct migrate_request req = request_for(actor, &region, IN_RAM);

	play(&process->task);
	req.flags = drivers[NOUVEAU].device_flags;
	req.destination = pgmap_of(OWNER_NOUVEAU, 0);
	switch (dice_pick(dice_of(actor), 8)) {
	case 0: req.vma = &process->area[AREA_IO]; break;
	case 1: req.end = req.start; break;
	case 2: req.abandon = true; break;
	case 3: req.skip_pages = true; break;
	case 4: heap_of(actor, OLLAMA)->runs = 0; break;
	case 5: region.start = process->area[AREA_READ_ONLY].vm_start; break;
	case 6: region.start = process->area[AREA_HEAP].vm_end; break;
	default: req.undersized = 1 + dice_pick(dice_of(actor), 4);
	}
	if (region.start == req.start)
		drivers[NOUVEAU].to_device(&req);
	else
		mirror(actor, PATH_NOUVEAU, &region, true, NULL);
}

/* A GPU's atomics take pages away from the CPU, and it takes them back. */
static void atomics(struct actor *actor)
{
	struct process *process = &actor->world->process[PYTHON];
	struct region region = new_region(actor, PYTHON, OWNER_UVM, PAGE_SIZE);
	struct exclusive_request req = { &process->mm, region.start, owners[OWNER_UVM].pointer };

	reset_area(actor->world, PYTHON, AREA_HEAP);
	play(&actor->world->kworker[KWORKER_FAULT]);
	if (dice_one_in(dice_of(actor), 20))
		req.addr = process->area[AREA_FILE].vm_start;
	exclusive_paths[dice_pick(dice_of(actor), ARRAY_SIZE(exclusive_paths))](&req);
	play(&process->task);
	if (!dice_one_in(dice_of(actor), 4))
		do_user_addr_fault(&process->area[AREA_HEAP], req.addr == region.start ? region.start : 0);
}

/* On-demand paging: a few pages faulted in, mapped for the adapter, and unmapped. */
static void rdma(struct actor *actor)
{
	struct region region = new_region(actor, VLLM, OWNER_NONE, size_between(actor, 4 * KIB, 64 * KIB));
	struct pci_p2pdma_map_state state = { .unsupported = dice_one_in(dice_of(actor), 50) };
	unsigned long pfns[4] = { state.unsupported ? HMM_PFN_P2PDMA : 0 };
	struct hmm_dma_map map = { .pfn_list = pfns, .dma_entry_size = PAGE_SIZE };

	reset_area(actor->world, VLLM, AREA_HEAP);
	play(&actor->world->process[VLLM].task);
	mirror(actor, PATH_ODP, &region, true, NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(pfns); i++)
		mlx5_odp_populate_mtt(&map, i, &state);
	for (unsigned int i = 0; i < ARRAY_SIZE(pfns); i++)
		ib_umem_odp_unmap_dma_pages(&map, i);
}

/* Buffers come and go, and with them the notifiers of their ranges. */
static void churn(struct actor *actor)
{
	enum mirror_id id = dice_pick(dice_of(actor), NR_MIRRORS);
	enum process_id process = dice_pick(dice_of(actor), NR_WORKING);
	struct region region = new_region(actor, process, OWNER_NONE, size_between(actor, 64 * KIB, 512 * MIB));
	struct task_struct *task = &actor->world->process[process].task;
	struct mmu_interval_notifier notifier;

	play(task);
	task->make_it_fail = dice_one_in(dice_of(actor), 100);
	if (!mirrors[id].insert(&notifier, task->mm, region.start, region.size, &mirrors[id]))
		mirrors[id].remove(&notifier, &mirrors[id]);
	task->make_it_fail = 0;
}

/* Memory management that has nothing to do with HMM, as seen by the same probes. */
static void compaction(struct actor *actor)
{
	enum process_id process = dice_pick(dice_of(actor), NR_WORKING);
	struct region region = new_region(actor, process, OWNER_NONE, size_between(actor, 4 * KIB, 4 * MIB));
	struct mmu_notifier_range range = { &actor->world->process[process].mm, region.start,
					    region.start + region.size, 0,
					    dice_pick(dice_of(actor), MMU_NOTIFY_MIGRATE), NULL };
	int order = dice_one_in(dice_of(actor), 4) ? HPAGE_PMD_ORDER : 0;

	play(&actor->world->kworker[KCOMPACTD]);
	mmu_notifier_invalidate_range_start(&range);
	trace_set_migration_pte(region.start, 1, order);
	work(WORK_REMAP, PAGE_SIZE << order);
	trace_remove_migration_pte(region.start, 1, order);
}

static const struct scenario scenarios[NR_SCENARIOS] = {
	[WARM_UP] = { "warm-up", warm_up, "llama-server reads a model in: large prefetches to two amdgpu GPUs" },
	[STEADY] = { "steady", steady, "python3 on xe: GPU faults bring in a little, mirrors are refreshed" },
	[THRASH] = { "thrash", thrash, "train.py on nvidia_uvm: memory sent away and touched again within seconds" },
	[EBUSY_STORM] = { "ebusy", ebusy_storm, "ollama races its GPU: most hmm_range_fault calls end in EBUSY" },
	[EVICTION] = { "eviction", eviction, "the device is full: workers evict, by VMA and by device range" },
	[HUGE_PAGES] = { "huge", huge_pages, "VLLM on xe: huge folios there and back, also for another device" },
	[FAILURES] = { "failures", failures, "ollama on nouveau: bad arguments, abandoned and empty migrations" },
	[ATOMICS] = { "atomics", atomics, "python3: pages made exclusive to a GPU, restored by CPU accesses" },
	[RDMA] = { "rdma", rdma, "VLLM on mlx5: on-demand paging faults pages in, maps and unmaps them" },
	[CHURN] = { "churn", churn, "every driver: interval notifiers inserted and removed" },
	[COMPACTION] = { "compaction", compaction, "kcompactd: migration entries and invalidations of others than HMM" },
};

/* A day of ten minutes. */
static const struct {
	double seconds;
	unsigned char weight[NR_SCENARIOS];
} day[] = {
	/* warm-up, steady, thrash, ebusy, eviction, huge, failures, atomics, rdma, churn, compaction */
	{ 60, { 40, 20, 2, 3, 2, 15, 2, 2, 4, 6, 4 } },	  /* jobs start */
	{ 180, { 6, 45, 4, 5, 3, 20, 2, 4, 5, 3, 3 } },	  /* work as it should be */
	{ 120, { 3, 22, 40, 8, 5, 10, 2, 3, 3, 2, 2 } },  /* one job thrashes */
	{ 60, { 3, 25, 6, 30, 5, 10, 6, 4, 5, 3, 3 } },	  /* one races its GPU */
	{ 120, { 12, 20, 12, 6, 30, 8, 3, 2, 3, 2, 2 } }, /* memory gets scarce */
	{ 60, { 4, 50, 4, 4, 3, 14, 2, 5, 6, 4, 4 } },	  /* and all is well again */
};

static const unsigned char *weights_at(double seconds)
{
	double length = 0;

	for (size_t i = 0; i < ARRAY_SIZE(day); i++)
		length += day[i].seconds;
	seconds = fmod(seconds, length);
	for (size_t i = 0; i < ARRAY_SIZE(day); i++) {
		if (seconds < day[i].seconds)
			return day[i].weight;
		seconds -= day[i].seconds;
	}
	return day[0].weight;
}
