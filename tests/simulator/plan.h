/* SPDX-License-Identifier: Apache-2.0 */
/* What exact mode issues: one function a kind of event, each with attributes drawn from its dice. */
#ifndef SIMULATOR_PLAN_H
#define SIMULATOR_PLAN_H

#include "ledger.h"
#include "timing.h"
#include "world.h"

/* So many events of each main kind belong together: a thread issues a unit from end to end. */
#define UNIT 32

struct stage {
	struct world *world;
	struct dice dice; /* for the event at hand */
	unsigned long index; /* of the event's place among all of its kind */
	unsigned long left;  /* so many of its kind are still to come in this unit, with this one */
	bool alone;	     /* there is but the first process */
	/* Notifiers that the unit has inserted and not removed yet. */
	struct mmu_interval_notifier notifier[UNIT];
	enum mirror_id notifier_of[UNIT];
	unsigned int notifiers;
};

static enum process_id any_process(struct stage *stage);
/* At and around every power of two of pages, up to 128 GiB. */
static unsigned long any_size(struct stage *stage);
/* The same for migrations, which have arrays: large ones are rare, and those beyond the arrays still more. */
static unsigned long any_migration_size(struct stage *stage);
/* Each so-many-th, for things that go wrong: mostly 0, which is none. */
static unsigned int any_every(struct stage *stage);
/* So many pages lie one behind the other in the same place. */
static unsigned int any_run(struct stage *stage);
/* A place in the heap of a process with room for any size. */
static unsigned long any_address(struct stage *stage, enum process_id id);
/* The acting task: mostly the process itself, else a kernel thread. */
static struct task_struct *any_task(struct stage *stage, enum process_id id);

static void plan_migration(struct stage *stage);
static void plan_range_fault(struct stage *stage);
static void plan_exclusive(struct stage *stage);
static void plan_restore(struct stage *stage);
static void plan_notifier_insert(struct stage *stage);
static void plan_notifier_remove(struct stage *stage);
static void plan_huge_fault(struct stage *stage);
static void plan_device_range(struct stage *stage);
static void plan_dma_map(struct stage *stage);
static void plan_dma_unmap(struct stage *stage);
static void plan_invalidation(struct stage *stage);
static void plan_migration_pte(struct stage *stage);
static void plan_migration_pmd(struct stage *stage);

#endif
