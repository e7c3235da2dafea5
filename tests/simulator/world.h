/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes, kernel threads and memory that one thread of the simulator plays with. Each
 * thread has a world of its own, with the same inhabitants, so that threads share nothing.
 */
#ifndef SIMULATOR_WORLD_H
#define SIMULATOR_WORLD_H

#include "drivers.h"

enum process_id {
	PYTHON,
	LLAMA,
	OLLAMA,
	TRAIN,
	VLLM,
	NR_WORKING,	      /* those that run mode uses */
	ODD_NAME = NR_WORKING, /* bytes that are no text */
	ORPHAN,		      /* its mm has no owner any more: the last thread of an exiting process */
	NR_PROCESSES,
};

enum kworker_id { KWORKER_FAULT, KWORKER_EVICT, KCOMPACTD, NR_KWORKERS };

/* What a process has mapped; between two areas is nothing. */
enum area { AREA_HEAP, AREA_READ_ONLY, AREA_FILE, AREA_HUGETLB, AREA_IO, AREA_DAX, NR_AREAS };

struct process {
	struct task_struct task;
	struct mm_struct mm;
	struct mmu_notifier_subscriptions subscriptions;
	struct vm_area_struct area[NR_AREAS];
	struct page_table tables[NR_AREAS];
	/* Inserted before the first probe came: every driver mirrors every process. */
	struct mmu_interval_notifier mirror[NR_MIRRORS];
};

struct world {
	struct process process[NR_PROCESSES];
	struct task_struct kworker[NR_KWORKERS];
	struct page page[NR_PROCESSES];	  /* an ordinary page of each process */
	struct page device_page[NR_OWNERS]; /* and one of each device's */
	struct page foreign_page;	  /* no device's: a bad fault_page */
};

static struct world *world_create(unsigned int thread);
/* From here on this thread acts as `task`. */
static void play(struct task_struct *task);
/* Back to ordinary, present memory, after what an event has made of it. */
static void reset_area(struct world *world, enum process_id id, enum area area);

#endif
