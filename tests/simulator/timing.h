/* SPDX-License-Identifier: Apache-2.0 */
/* Chance and time: reproducible dice, and durations that look like a kernel's. */
#ifndef SIMULATOR_TIMING_H
#define SIMULATOR_TIMING_H

#include "kernel.h"

struct dice { u64 state; };

/* Dice for one event: they depend on these three numbers and on nothing else. */
static struct dice dice_for(u64 seed, u64 kind, u64 index);
static u64 dice_roll(struct dice *dice);
static unsigned int dice_pick(struct dice *dice, unsigned int sides); /* 0 .. sides - 1 */
static bool dice_one_in(struct dice *dice, unsigned int sides);
static double dice_uniform(struct dice *dice); /* 0 < x < 1 */
static double dice_normal(struct dice *dice);

static u64 now_ns(void); /* CLOCK_MONOTONIC */

enum work {
	WORK_COLLECT,  /* migrate_vma_setup: page walk, notifiers, unmapping */
	WORK_ALLOCATE, /* a driver finds device memory */
	WORK_COPY,     /* a DMA engine copies; grows with the size */
	WORK_COMMIT,   /* migrate_vma_pages */
	WORK_REMAP,    /* migrate_vma_finalize */
	WORK_WALK,     /* hmm_range_fault without a fault */
	WORK_FAULT,    /* handle_mm_fault on ordinary memory */
	WORK_LOCK,     /* mm_take_all_locks, folio locks */
};

/* How a thread spends time in work(); NULL (exact mode) when no time is to pass. */
struct pace {
	struct dice dice;
	bool late; /* behind its schedule: no time to lose */
};

static __thread struct pace *pace;

/* Lets a log-normal time pass: sleeps when it is long, spins when it is short. */
static void work(enum work what, unsigned long bytes);

#endif
