/* SPDX-License-Identifier: Apache-2.0 */
/* What run mode plays: scenes from the life of machines with GPUs. */
#ifndef SIMULATOR_SCENARIOS_H
#define SIMULATOR_SCENARIOS_H

#include "timing.h"
#include "world.h"

/* Memory that was sent to a device, until something brings it back. */
struct region {
	enum process_id process;
	enum owner_id owner;
	unsigned long start, size;
	u64 due; /* when a CPU will touch it */
};

#define REGIONS 512

/* One thread of run mode: its world, and what it has sent away. */
struct actor {
	struct world *world;
	struct pace pace;
	struct region region[REGIONS]; /* a ring */
	unsigned int first, regions;
};

/* A step is one event with what belongs to it, most often one migration. */
struct scenario {
	const char *name;
	void (*step)(struct actor *actor);
	const char *about;
};

enum scenario_id {
	WARM_UP,
	STEADY,
	THRASH,
	EBUSY_STORM,
	EVICTION,
	HUGE_PAGES,
	FAILURES,
	ATOMICS,
	RDMA,
	CHURN,
	COMPACTION,
	NR_SCENARIOS,
};

static const struct scenario scenarios[NR_SCENARIOS];

/* The time of day: how often each scenario comes up now, `seconds` after the start. */
static const unsigned char *weights_at(double seconds);

#endif
