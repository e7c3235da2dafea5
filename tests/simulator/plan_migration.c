/* SPDX-License-Identifier: Apache-2.0 */
/* Migrations of every class, trigger, owner and outcome, whether or not a driver would ever make them. */
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum outcome { COMPLETED, COMPLETED_WITHOUT_PAGES, EMPTY, EMPTY_FINALIZED, FAILED, ABANDONED };

static const char *const outcome_names[] = {
	[COMPLETED] = "completed", [COMPLETED_WITHOUT_PAGES] = "completed_without_pages",
	[EMPTY] = "empty",	   [EMPTY_FINALIZED] = "empty_finalized",
	[FAILED] = "failed",	   [ABANDONED] = "abandoned",
};

/* Drawn with these odds. */
static const enum outcome outcomes[] = {
	COMPLETED, COMPLETED, COMPLETED, COMPLETED, COMPLETED, COMPLETED, COMPLETED, COMPLETED,
	COMPLETED_WITHOUT_PAGES, COMPLETED_WITHOUT_PAGES, EMPTY, EMPTY_FINALIZED, FAILED, FAILED, ABANDONED,
};

enum trigger { CPU_FAULT, NESTED, KTHREAD, SYSCALL };

static const char *const trigger_names[] = {
	[CPU_FAULT] = "cpu_fault", [NESTED] = "nested", [KTHREAD] = "kthread", [SYSCALL] = "syscall",
};

#define SYSTEM MIGRATE_VMA_SELECT_SYSTEM
#define PRIVATE MIGRATE_VMA_SELECT_DEVICE_PRIVATE
#define COHERENT MIGRATE_VMA_SELECT_DEVICE_COHERENT
#define COMPOUND MIGRATE_VMA_SELECT_COMPOUND

enum class_id { PREFETCH, FAULT_BACK, EVICT, UNCLASSIFIED, NR_CLASSES };

/* A CPU fault comes with a page, so only fault_back has that trigger. */
static const struct migration_class {
	const char *name;
	bool has_fault_page;
	unsigned int triggers, nr_flags;
	enum trigger trigger[4];
	unsigned long flags[4];
} classes[NR_CLASSES] = {
	{ "prefetch", false, 3, 4, { NESTED, KTHREAD, SYSCALL },
	  { SYSTEM, SYSTEM | COMPOUND, SYSTEM | PRIVATE, SYSTEM | PRIVATE | COHERENT | COMPOUND } },
	{ "fault_back", true, 4, 4, { CPU_FAULT, NESTED, KTHREAD, SYSCALL },
	  { PRIVATE, PRIVATE | COMPOUND, PRIVATE | COHERENT | COMPOUND, PRIVATE | SYSTEM } },
	{ "evict", false, 3, 4, { NESTED, KTHREAD, SYSCALL },
	  { PRIVATE, COHERENT, PRIVATE | COHERENT, PRIVATE | COMPOUND } },
	{ "unclassified", false, 3, 2, { NESTED, KTHREAD, SYSCALL }, { 0, COMPOUND } },
};

struct migration_plan {
	struct migrate_request req;
	const struct migration_class *class;
	enum trigger trigger;
	enum outcome outcome;
	enum owner_id owner;
	enum process_id process;
};

/* Reasons for migrate_vma_setup to return -EINVAL, in the order of its checks. */
enum mistake {
	NO_VMA,
	HUGETLB_VMA,
	SPECIAL_VMA,
	DAX_VMA,
	ONE_BYTE,
	NO_PAGE,
	REVERSED,
	BEFORE_VMA,
	BEHIND_VMA,
	BEYOND_VMA,
	NO_SRC,
	NO_DST,
	BAD_FAULT_PAGE,
	NR_MISTAKES,
};

static enum mistake any_mistake(struct stage *stage, const struct migration_plan *plan)
{
	/* Without a VMA nobody knows whose memory it is, so it is no CPU's fault. */
	enum mistake first = plan->trigger == CPU_FAULT ? HUGETLB_VMA : NO_VMA;
	enum mistake end = plan->class->has_fault_page ? NR_MISTAKES : BAD_FAULT_PAGE;

	return first + dice_pick(&stage->dice, end - first);
}

static void take_area(struct migrate_request *req, struct vm_area_struct *area)
{
	req->end = area->vm_start + req->end - req->start;
	req->start = area->vm_start;
	req->vma = area;
}

static void make_mistake(struct stage *stage, struct migration_plan *plan)
{
	struct migrate_request *req = &plan->req;
	struct vm_area_struct *areas = stage->world->process[plan->process].area;

	switch (any_mistake(stage, plan)) {
	case NO_VMA: req->vma = NULL; break;
	case HUGETLB_VMA: take_area(req, &areas[AREA_HUGETLB]); break;
	case SPECIAL_VMA: take_area(req, &areas[AREA_IO]); break;
	case DAX_VMA: take_area(req, &areas[AREA_DAX]); break;
	case ONE_BYTE: req->end = req->start + 1; break;
	case NO_PAGE: req->end = req->start; break;
	case REVERSED: req->end = req->vma->vm_start - PAGE_SIZE; break;
	case BEFORE_VMA: req->start = req->vma->vm_start - PAGE_SIZE; break;
	case BEHIND_VMA: req->start = req->vma->vm_end, req->end = req->start + PAGE_SIZE; break;
	case BEYOND_VMA: req->end = req->vma->vm_end + PAGE_SIZE; break;
	case NO_SRC: req->no_src = true; break;
	case NO_DST: req->no_dst = true; break;
	case BAD_FAULT_PAGE: req->fault_page = &stage->world->foreign_page; break;
	case NR_MISTAKES: break;
	}
}

/*
 * Where in the heap: what a CPU fault brings back without anybody having seen it go has a part of
 * its own, into which nothing is ever sent; so have the stories of what goes and comes back.
 */
#define GIB (1UL << 30)
#define NEVER_SENT (256 * GIB)
#define STORIES (1024 * GIB)
#define STORY_SIZE (16 * HPAGE_PMD_SIZE)

static unsigned long heap_of_plan(const struct stage *stage, const struct migration_plan *plan)
{
	return stage->world->process[plan->process].area[AREA_HEAP].vm_start;
}

static void choose_range(struct stage *stage, struct migration_plan *plan)
{
	struct migrate_request *req = &plan->req;
	unsigned long size = any_migration_size(stage), start_offset, end_offset;

	req->vma = &stage->world->process[plan->process].area[AREA_HEAP];
	req->start = heap_of_plan(stage, plan) + dice_pick(&stage->dice, 64) * HPAGE_PMD_SIZE;
	if (plan->trigger == CPU_FAULT)
		req->start += NEVER_SENT;
	/* Anywhere in a huge page, or whole ones; but the arrays' end splits none. */
	if (dice_one_in(&stage->dice, 8))
		size = (1 + dice_pick(&stage->dice, 4)) * HPAGE_PMD_SIZE;
	else if (size <= GIB / 2 && dice_one_in(&stage->dice, 2))
		req->start += dice_pick(&stage->dice, HPAGE_PMD_NR) * PAGE_SIZE;
	req->end = req->start + size;
	if (!dice_one_in(&stage->dice, 4))
		return;
	/* The kernel aligns both ends down, so a range may start and end anywhere in a page. */
	start_offset = dice_pick(&stage->dice, PAGE_SIZE);
	end_offset = dice_pick(&stage->dice, PAGE_SIZE);
	/* Less than one page between them is refused, before it is aligned. */
	if (size == PAGE_SIZE && end_offset < start_offset)
		end_offset = start_offset;
	req->start += start_offset;
	req->end += end_offset;
}

static bool is_selected(const struct migration_plan *plan, enum place place)
{
	switch (place) {
	case NOTHING: return true;
	case IN_RAM: return plan->req.flags & SYSTEM;
	case ON_DEVICE: return plan->req.flags & PRIVATE && plan->req.owner->regions;
	default: return false;
	}
}

static enum place any_selected_place(struct stage *stage, const struct migration_plan *plan)
{
	enum place place;

	do
		place = dice_pick(&stage->dice, ON_DEVICE + 1);
	while (!is_selected(plan, place));
	return place;
}

static void fill_runs(struct stage *stage, const struct migration_plan *plan, struct page_table *table)
{
	bool empty = plan->outcome == EMPTY || plan->outcome == EMPTY_FINALIZED;

	table->runs = 1 + dice_pick(&stage->dice, PAGE_RUNS);
	for (unsigned int i = 0; i < table->runs; i++) {
		struct page_run *run = &table->run[i];

		*run = (struct page_run){ dice_pick(&stage->dice, ON_DEVICE + 1), any_run(stage),
					  dice_one_in(&stage->dice, 2) };
		if (run->huge && dice_one_in(&stage->dice, 2))
			run->pages = (1 + dice_pick(&stage->dice, 3)) * HPAGE_PMD_NR;
		if (empty && is_selected(plan, run->place))
			run->place = SWAPPED_OUT;
	}
	if (!empty)
		table->run[0].place = any_selected_place(stage, plan);
}

/* What setup will find in the page tables. */
static void populate(struct stage *stage, const struct migration_plan *plan)
{
	struct page_table *table = &stage->world->process[plan->process].tables[AREA_HEAP];

	reset_area(stage->world, plan->process, AREA_HEAP);
	if (plan->req.end - plan->req.start >= 2 * HPAGE_PMD_SIZE && dice_one_in(&stage->dice, 4))
		table->order = HPAGE_PMD_ORDER;
	table->forked = dice_one_in(&stage->dice, 8);
	table->pgmap = pgmap_of(plan->owner, dice_pick(&stage->dice, 2));
	fill_runs(stage, plan, table);
}

/* In half of the migrations nothing goes wrong with single pages. */
static void expect_trouble(struct stage *stage, struct migrate_request *req)
{
	if (dice_one_in(&stage->dice, 2))
		return;
	trouble.pinned = any_every(stage);
	trouble.uncommitted = any_every(stage);
	req->declines = any_every(stage);
	req->splits = any_every(stage);
	req->undersized = dice_one_in(&stage->dice, 8) ? 1 + dice_pick(&stage->dice, 600) : 0;
	req->room = dice_one_in(&stage->dice, 8) ? 1 + dice_pick(&stage->dice, 600) : 0;
}

static struct migration_plan new_migration(struct stage *stage, enum class_id class, enum owner_id owner,
					   enum process_id process)
{
	struct migration_plan plan = { .class = &classes[class], .owner = owner, .process = process };

	plan.req = (struct migrate_request){
		.owner = &owners[owner],
		.flags = plan.class->flags[dice_pick(&stage->dice, plan.class->nr_flags)],
		.fault_page = plan.class->has_fault_page ? &stage->world->device_page[owner] : NULL,
		.class = plan.class->name,
	};
	if (class == PREFETCH && plan.req.owner->regions)
		plan.req.destination = pgmap_of(owner, dice_pick(&stage->dice, 2));
	return plan;
}

static void decide(struct migration_plan *plan, enum trigger trigger, enum outcome outcome)
{
	plan->trigger = trigger;
	plan->outcome = outcome;
	plan->req.trigger = trigger_names[trigger];
	plan->req.abandon = outcome == ABANDONED;
	plan->req.skip_pages = outcome == COMPLETED_WITHOUT_PAGES;
	plan->req.finalize_empty = outcome == EMPTY_FINALIZED;
}

static struct migration_plan choose_migration(struct stage *stage)
{
	struct dice *dice = &stage->dice;
	enum class_id class = dice_pick(dice, NR_CLASSES);
	struct migration_plan plan = new_migration(stage, class, dice_pick(dice, NR_OWNERS), any_process(stage));
	enum outcome outcome = outcomes[dice_pick(dice, ARRAY_SIZE(outcomes))];

	/* What follows an abandoned one must be a migration, and in this thread. */
	if (outcome == ABANDONED && stage->left == 1)
		outcome = COMPLETED;
	decide(&plan, plan.class->trigger[dice_pick(dice, plan.class->triggers)], outcome);
	plan.req.pages_when_empty = dice_one_in(dice, 2);
	plan.req.ignores_holes = dice_one_in(dice, 2);
	choose_range(stage, &plan);
	populate(stage, &plan);
	expect_trouble(stage, &plan.req);
	if (plan.outcome == FAILED)
		make_mistake(stage, &plan);
	return plan;
}

static struct task_struct *another_process(struct stage *stage, enum process_id id)
{
	unsigned int step = 1 + dice_pick(&stage->dice, NR_PROCESSES - 1);

	return &stage->world->process[(id + step) % NR_PROCESSES].task;
}

static struct task_struct *acting_task(struct stage *stage, const struct migration_plan *plan)
{
	struct task_struct *own = &stage->world->process[plan->process].task;
	struct task_struct *kworker = &stage->world->kworker[dice_pick(&stage->dice, KCOMPACTD)];

	switch (plan->trigger) {
	case CPU_FAULT: return own;
	case KTHREAD: return kworker;
	case NESTED: return dice_one_in(&stage->dice, 4) ? kworker : own;
	case SYSCALL: break;
	}
	/* A fault that a process takes on memory of its own would be a CPU fault. */
	if (plan->class->has_fault_page || dice_one_in(&stage->dice, 4))
		return another_process(stage, plan->process);
	return own;
}

/* The heap's pages are on the device, and its driver will answer a fault with this migration. */
static void put_on_device(struct stage *stage, struct migration_plan *plan)
{
	struct page_table *table = &stage->world->process[plan->process].tables[AREA_HEAP];

	table->state = ENTRY_DEVICE_PRIVATE;
	table->page = &stage->world->device_page[plan->owner];
	table->page->zone_device_data = &plan->req;
}

/* Of another device, which wants that memory. */
static void *another_owner(struct stage *stage, enum owner_id id)
{
	return owners[(id + 1 + dice_pick(&stage->dice, NR_OWNERS - 1)) % NR_OWNERS].pointer;
}

static void mirror_device_memory(struct stage *stage, const struct migration_plan *plan)
{
	const struct range_path *path = &range_paths[dice_pick(&stage->dice, ARRAY_SIZE(range_paths))];
	struct process *process = &stage->world->process[plan->process];
	unsigned long pfns[HMM_PFNS] = {}, start = any_address(stage, plan->process);
	bool write = dice_one_in(&stage->dice, 2);
	struct range_request req = {
		.range = { .notifier = &process->mirror[path->mirror], .start = start,
			   .end = start + any_size(stage), .hmm_pfns = pfns,
			   .default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
			   .dev_private_owner = another_owner(stage, plan->owner) },
		.mirror = path->mirror,
		.intent = write ? "write" : "read",
	};

	path->fault(&req);
}

static void make_device_memory_exclusive(struct stage *stage, const struct migration_plan *plan)
{
	struct exclusive_request req = { &stage->world->process[plan->process].mm, any_address(stage, plan->process),
					 another_owner(stage, plan->owner) };

	exclusive_paths[dice_pick(&stage->dice, ARRAY_SIZE(exclusive_paths))](&req);
}

static void call_driver(const struct migration_plan *plan, struct migrate_request *req)
{
	const struct driver *driver = &drivers[req->owner->driver];

	if (!strcmp(plan->class->name, "prefetch"))
		driver->to_device(req);
	else
		driver->to_ram(req);
}

static void carry_out(struct stage *stage, struct migration_plan *plan)
{
	if (plan->trigger == CPU_FAULT || plan->trigger == NESTED)
		put_on_device(stage, plan);
	if (plan->trigger == CPU_FAULT)
		do_user_addr_fault(&stage->world->process[plan->process].area[AREA_HEAP], plan->req.start);
	else if (plan->trigger == NESTED && dice_one_in(&stage->dice, 3))
		make_device_memory_exclusive(stage, plan);
	else if (plan->trigger == NESTED)
		mirror_device_memory(stage, plan);
	else
		call_driver(plan, &plan->req);
}

/* All that was collected may be held by somebody, and then nothing is left to be migrated. */
static bool ended_as_planned(const struct migration_plan *plan)
{
	const char *planned = outcome_names[plan->outcome], *outcome = plan->req.outcome;
	bool collected = plan->outcome != EMPTY && plan->outcome != EMPTY_FINALIZED && plan->outcome != FAILED;

	if (collected && moves.busy && moves.busy == moves.collected && !moves.holes)
		planned = outcome_names[EMPTY];
	return outcome && !strcmp(outcome, planned);
}

static void play_migration(struct stage *stage, struct migration_plan *plan, struct task_struct *task)
{
	struct process *process = &stage->world->process[plan->process];
	/* A kernel thread may borrow the mm for which it works (kthread_use_mm). */
	bool borrow = task->flags & PF_KTHREAD && !plan->class->has_fault_page && dice_one_in(&stage->dice, 4);

	play(task);
	if (borrow)
		task->mm = &process->mm;
	plan->req.current = task->flags & PF_KTHREAD ? "kthread" : "user";
	plan->req.comm = comm_of(plan->req.vma ? &process->mm : NULL);
	carry_out(stage, plan);
	if (borrow)
		task->mm = NULL;
	if (!ended_as_planned(plan)) {
		fprintf(stderr, "hmm-simulator: a migration planned as %s ended as %s\n",
			outcome_names[plan->outcome], plan->req.outcome ? plan->req.outcome : "never called");
		abort();
	}
	memset(&trouble, 0, sizeof(trouble));
}

/* Goes to the device: mostly within one huge page, else over up to eight. */
static struct migration_plan send_away(struct stage *stage, enum owner_id owner, enum process_id process)
{
	struct migration_plan plan = new_migration(stage, PREFETCH, owner, process);
	unsigned long pages = dice_one_in(&stage->dice, 4) ? 8 * HPAGE_PMD_NR : HPAGE_PMD_NR;
	unsigned long start = dice_pick(&stage->dice, pages), size = 1 + dice_pick(&stage->dice, pages - start);

	decide(&plan, dice_one_in(&stage->dice, 2) ? KTHREAD : SYSCALL, COMPLETED);
	plan.req.vma = &stage->world->process[process].area[AREA_HEAP];
	plan.req.start = heap_of_plan(stage, &plan) + STORIES + stage->index * STORY_SIZE + start * PAGE_SIZE;
	plan.req.end = plan.req.start + size * PAGE_SIZE;
	populate(stage, &plan);
	stage->world->process[process].tables[AREA_HEAP].run[0].place = IN_RAM;
	expect_trouble(stage, &plan.req);
	play_migration(stage, &plan, acting_task(stage, &plan));
	return plan;
}

/* A CPU touches it: a page, or more, of what was sent. */
static void bring_back(struct stage *stage, const struct migration_plan *sent)
{
	struct migration_plan plan = new_migration(stage, FAULT_BACK, sent->owner, sent->process);
	struct page_table *table = &stage->world->process[sent->process].tables[AREA_HEAP];
	unsigned long pages = (sent->req.end - sent->req.start) / PAGE_SIZE, first = dice_pick(&stage->dice, pages);
	unsigned long size = dice_one_in(&stage->dice, 2) ? 1 : 1 + dice_pick(&stage->dice, pages - first);

	decide(&plan, CPU_FAULT, COMPLETED);
	plan.req.vma = sent->req.vma;
	plan.req.ignores_holes = true;
	plan.req.start = sent->req.start + first * PAGE_SIZE;
	plan.req.end = plan.req.start + size * PAGE_SIZE;
	populate(stage, &plan);
	table->pgmap = sent->req.destination;
	table->run[0].place = ON_DEVICE;
	expect_trouble(stage, &plan.req);
	play_migration(stage, &plan, acting_task(stage, &plan));
}

/* Memory goes to a device, CPUs bring it back, and it may go there again in between. */
static void tell_story(struct stage *stage)
{
	enum owner_id owner = OWNER_UVM + dice_pick(&stage->dice, NR_OWNERS - OWNER_UVM);
	enum process_id process = any_process(stage);
	unsigned long end = stage->left < 6 ? stage->left : 2 + dice_pick(&stage->dice, 4);
	struct migration_plan sent;

	watch_residents(true);
	sent = send_away(stage, owner, process);
	for (unsigned long i = 1; i < end; i++) {
		if (i + 1 < end && dice_one_in(&stage->dice, 4))
			sent = send_away(stage, owner, process);
		else
			bring_back(stage, &sent);
	}
	watch_residents(false);
}

static void plan_migration(struct stage *stage)
{
	struct migration_plan plan;

	if (stage->left > 1 && dice_one_in(&stage->dice, 16)) {
		tell_story(stage);
		return;
	}
	plan = choose_migration(stage);
	play_migration(stage, &plan, acting_task(stage, &plan));
}
