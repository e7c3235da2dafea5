/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIMULATOR_RUN_H
#define SIMULATOR_RUN_H

#include "scenarios.h"

struct run_options {
	unsigned int threads;
	double rate;	/* steps a second, of all threads together; a step is one event, see scenarios.h */
	double seconds; /* 0: until SIGTERM or SIGINT */
	unsigned long seed;
	bool chosen[NR_SCENARIOS]; /* none: all, by the time of day */
	bool any_chosen;
};

/* Plays until the time is over or a signal comes; ends with one line that sums up. */
static void run(const struct run_options *options);

#endif
