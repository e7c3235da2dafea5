/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIMULATOR_EXACT_H
#define SIMULATOR_EXACT_H

#include <stdbool.h>

/* Each migration has an address of its own, and address spaces end. */
#define MOST_EVENTS 900000

struct exact_options {
	unsigned int threads;
	unsigned long events; /* of each main kind */
	unsigned long seed;
	bool wait_for_stdin;
};

/* Issues the events and prints the books to stdout. */
static void exact(const struct exact_options *options);

#endif
