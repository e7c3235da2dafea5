/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include "cgroups.h"

#include <stdlib.h>
#include <string.h>

static const struct { const char *comm; pid_t tgid; } process_table[NR_PROCESSES] = {
	[PYTHON] = { "python3", 4101 },
	[LLAMA] = { "llama-server", 4210 },
	[OLLAMA] = { "ollama", 4302 },
	[TRAIN] = { "train.py", 4417 },
	[VLLM] = { "VLLM::EngineCor", 4533 }, /* 15 bytes, and colons that are no kworker's */
	[ODD_NAME] = { "caf\xe9 \"a\\b\"", 4600 },
	[ORPHAN] = { "dying", 4711 },
};

static const struct { const char *comm; pid_t pid; } kworker_table[NR_KWORKERS] = {
	[KWORKER_FAULT] = { "kworker/u64:3", 311 },
	[KWORKER_EVICT] = { "kworker/5:1H", 96 },
	[KCOMPACTD] = { "kcompactd0", 71 },
};

#define TIB (1UL << 40)
#define HEAP_SIZE (32 * TIB)
#define FIRST_AREA (16 * TIB)

static struct file regular_file, dax_file = { .dax = true };

static const struct { unsigned long flags; struct file *file; } area_table[NR_AREAS] = {
	[AREA_HEAP] = { VM_WRITE, NULL },
	[AREA_READ_ONLY] = { 0, NULL },
	[AREA_FILE] = { VM_WRITE, &regular_file },
	[AREA_HUGETLB] = { VM_WRITE | VM_HUGETLB, NULL },
	[AREA_IO] = { VM_WRITE | VM_IO | VM_PFNMAP | VM_DONTEXPAND, NULL },
	[AREA_DAX] = { VM_WRITE, &dax_file },
};

static void reset_area(struct world *world, enum process_id id, enum area area)
{
	world->process[id].tables[area] = (struct page_table){ .page = &world->page[id] };
}

static void map_areas(struct world *world, enum process_id id)
{
	struct process *process = &world->process[id];

	for (enum area i = 0; i < NR_AREAS; i++) {
		process->area[i] = (struct vm_area_struct){
			.vm_start = i ? FIRST_AREA + HEAP_SIZE + 2 * i * TIB : FIRST_AREA,
			.vm_end = i ? FIRST_AREA + HEAP_SIZE + (2 * i + 1) * TIB : FIRST_AREA + HEAP_SIZE,
			.vm_mm = &process->mm,
			.vm_flags = area_table[i].flags,
			.vm_file = area_table[i].file,
			.vm_private_data = &process->tables[i],
		};
		reset_area(world, id, i);
	}
	process->mm.mm_mt = process->area;
	process->mm.map_count = NR_AREAS;
}

static void mirror_memory(struct process *process)
{
	process->mm.notifier_subscriptions = &process->subscriptions;
	process->subscriptions.has_itree = true;
	for (enum mirror_id i = 0; i < NR_MIRRORS; i++) {
		struct mmu_interval_notifier *sub = &process->mirror[i];

		sub->mm = &process->mm;
		sub->ops = mirrors[i].ops;
		sub->interval_tree.last = ~0UL;
		link_notifier(sub);
	}
}

static void fork_process(struct world *world, enum process_id id, unsigned int thread)
{
	struct process *process = &world->process[id];

	strcpy(process->task.comm, process_table[id].comm);
	process->task.tgid = process_table[id].tgid;
	process->task.pid = process_table[id].tgid + thread;
	process->task.mm = process->task.active_mm = &process->mm;
	process->task.cgroups = cgroups_of(process->task.comm, thread);
	process->mm.owner = id == ORPHAN ? NULL : &process->task;
	process->mm.mm_users = 1;
	map_areas(world, id);
	mirror_memory(process);
	world->page[id].pfn = RAM_PFN + 0x10000 * id;
}

static struct world *world_create(unsigned int thread)
{
	struct world *world = calloc(1, sizeof(*world));

	for (enum process_id i = 0; i < NR_PROCESSES; i++)
		fork_process(world, i, thread);
	for (enum kworker_id i = 0; i < NR_KWORKERS; i++) {
		strcpy(world->kworker[i].comm, kworker_table[i].comm);
		world->kworker[i].pid = world->kworker[i].tgid = kworker_table[i].pid;
		world->kworker[i].flags = PF_KTHREAD;
		world->kworker[i].cgroups = cgroups_of("", 0);
	}
	for (enum owner_id i = 0; i < NR_OWNERS; i++) {
		struct dev_pagemap *pgmap = pgmap_of(i, 0);

		world->device_page[i] = (struct page){ .pgmap = pgmap, .pfn = pgmap->range.start >> PAGE_SHIFT };
	}
	return world;
}

static void play(struct task_struct *task)
{
	current = task;
}
